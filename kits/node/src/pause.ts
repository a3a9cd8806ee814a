// Waits that a signal can end.
import { setTimeout as sleep } from "node:timers/promises";

/** Waits. Fails with the signal's reason if the signal aborts first. */
export async function pause(ms: number, signal?: AbortSignal | null): Promise<void> {
  try {
    await sleep(ms, undefined, signal ? { signal } : {});
  } catch (error) {
    throw signal?.aborted ? signal.reason : error;
  }
}
