// Starts the gateways that the tests use, runs the tests, and ends the gateways.
//   node run.js [FILE…]      all test files by default
//
// The demo is the shipped gateway with a simulated Tor network and a fake web. The second gateway has a key, a limit and a token; it has no Tor, so
// its requests leave from this machine. No packet leaves this machine.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const BUILT = process.env.EXITGATE_BUILT ?? path.resolve(import.meta.dirname, "../../../target/debug");
const PATIENCE = 180_000;
const DEMO = "127.97.0.1";
const KEYED = "127.97.0.9";
const KEY = "kit-key-0123456789abcdef";
// A key whose client may open one connection a second.
const SLOW_KEY = "kit-slow-key-0123456789abcdef";
const TOKEN = "kit-token-0123456789abcdef";

function start(program, args, env) {
  const child = spawn(path.join(BUILT, program), args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  child.said = "";
  child.on("error", (error) => { child.said += error.message; });
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => { child.said += text; });
  return child;
}

async function until(what, holds, child) {
  const deadline = Date.now() + PATIENCE;
  while (!(await holds())) {
    if (child.exitCode !== null || child.pid === undefined) throw new Error(`${what}: the gateway ended\n${child.said}`);
    if (Date.now() > deadline) throw new Error(`${what}: not within ${PATIENCE} ms\n${child.said}`);
    await pause(100);
  }
}

async function stop(child) {
  if (!child || child.exitCode !== null || child.pid === undefined) return;
  child.kill("SIGINT");
  await once(child, "exit");
}

const folder = await mkdtemp(path.join(tmpdir(), "exitgate-kit-"));
let demo;
let keyed;
let code = 1;
try {
  demo = start("examples/demo", ["--simtor"], {
    EXITGATE__GATEWAY__LISTEN: `${DEMO}:1080`,
    EXITGATE__GATEWAY__ROUTE_BIND: DEMO,
    EXITGATE__API__LISTEN: `${DEMO}:8080`,
    // The sites of the tests are on this machine, where targets are refused by default.
    EXITGATE__GATEWAY__ALLOW_PRIVATE_TARGETS: "true",
  });
  const [certificate, secret] = ["cert.pem", "key.pem"].map((name) => path.join(folder, name));
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=gateway",
    "-addext", `subjectAltName=IP:${KEYED}`, "-keyout", secret, "-out", certificate], { stdio: "pipe" });
  const config = path.join(folder, "exitgate.toml");
  await writeFile(config, `data_dir = ${JSON.stringify(path.join(folder, "data"))}
gateway.listen = "${KEYED}:1080"
gateway.allow_private_targets = true
gateway.allow_direct = true
gateway.keys = [{ name = "team", key = "${KEY}" }, { name = "slow", key = "${SLOW_KEY}", limits = { per_second = 1 } }]
gateway.tls = { cert = ${JSON.stringify(certificate)}, key = ${JSON.stringify(secret)} }
api.listen = "${KEYED}:8080"
api.token = "${TOKEN}"
tor.enabled = false
sources.onionoo.enabled = false
lifecycle.drain = "1s"
`);
  keyed = start("exitgate", ["serve", "--config", config], {});
  await until("the demo", () => /Ready\./.test(demo.said), demo);
  const usable = async () => (await (await fetch(`http://${DEMO}:8080/ready`)).json()).sources.tor?.usable >= 8;
  await until("eight tested exits", usable, demo);
  await until("the gateway with a key", () => fetch(`http://${KEYED}:8080/health`).then(() => true, () => false), keyed);

  const named = process.argv.slice(2);
  const files = named.length ? named : (await readdir(import.meta.dirname)).filter((name) => name.endsWith(".test.js"));
  const page = /http:\/\/echo\.test(:\d+)?\/ip/.exec(demo.said)[0];
  const secure = /https:\/\/echo\.test(:\d+)?\/ip/.exec(demo.said)[0];
  const { NO_PROXY, no_proxy, HTTP_PROXY, http_proxy, HTTPS_PROXY, https_proxy, ALL_PROXY, all_proxy, ...env } = process.env;
  const tests = spawn(process.execPath, ["--test", "--test-reporter=spec", "--test-concurrency=1", "--test-timeout=120000", "--test-force-exit", ...files], {
    cwd: import.meta.dirname,
    stdio: "inherit",
    env: {
      ...env,
      EXITGATE_PROXY: `http://${DEMO}:1080`,
      EXITGATE_API: `http://${DEMO}:8080`,
      // Node reads further certificates only when it starts.
      NODE_EXTRA_CA_CERTS: /--cacert (\S+)/.exec(demo.said)[1],
      PAGE: page,
      SECURE_PAGE: secure,
      KEYED_PROXY: `http://${KEYED}:1080`,
      KEYED_API: `http://${KEYED}:8080`,
      KEYED_KEY: KEY,
      SLOW_KEY,
      KEYED_CA: certificate,
      KEYED_TOKEN: TOKEN,
      CRAWLEE_PERSIST_STORAGE: "false",
      CRAWLEE_STORAGE_DIR: path.join(folder, "storage"),
      CRAWLEE_LOG_LEVEL: "ERROR",
    },
  });
  [code] = await once(tests, "exit");
} finally {
  await Promise.all([stop(demo), stop(keyed)]);
  await rm(folder, { recursive: true, force: true });
}
process.exitCode = code ?? 1;
