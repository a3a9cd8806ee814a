// A git repository over plain HTTP: static files, as `git update-server-info` prepares them.
import { execFileSync } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";

export async function repository(ip, port) {
  const folder = await mkdtemp(path.join(tmpdir(), "exitgate-git-"));
  const git = (...args) => execFileSync("git", ["-C", folder, "-c", "user.name=x", "-c", "user.email=x@example.com", ...args], { stdio: "pipe" });
  git("init", "--quiet");
  git("commit", "--quiet", "--allow-empty", "--no-gpg-sign", "--message", "first");
  git("update-server-info");
  const server = createServer((request, answer) => {
    const asked = path.join(folder, ".git", path.posix.normalize(new URL(request.url, "http://x").pathname.replace(/^\/repository/, "/")));
    createReadStream(asked).on("error", () => answer.writeHead(404).end()).pipe(answer);
  });
  await new Promise((listening) => server.listen(port, ip, listening));
  const close = () => {
    server.close();
    server.closeAllConnections();
    return rm(folder, { recursive: true, force: true });
  };
  return { url: `http://${ip}:${port}/repository`, close };
}
