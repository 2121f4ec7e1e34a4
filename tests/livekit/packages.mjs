// LiveKit's packages out of the build folder, unmodified, and a cluster for them to talk to.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const build = path.resolve(process.env.PARLEY_BUILD_DIR);
const modules = path.join(build, "livekit", "node_modules");

export const sdk = () => import(pathToFileURL(path.join(modules, "livekit-server-sdk", "dist", "index.js")));
export const client = () => createRequire(path.join(modules, "x.js"))("livekit-client");

// Real processes until stop(): {where: addresses by service, url: of the API, stop}.
export async function startCluster() {
  const child = spawn(path.join(build, "bin", "parley-test-cluster"), { stdio: ["pipe", "pipe", "inherit"] });
  const line = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", () => reject(new Error("the cluster did not start; see its message above")));
  });
  const where = JSON.parse(line);
  const stop = () =>
    new Promise((resolve) => {
      child.once("exit", resolve);
      child.stdin.end();
    });
  return { where, url: `http://${where["api-server"]}`, stop };
}

// Asks until `look` answers something true; an error after ten seconds.
export async function eventually(what, look) {
  const until = Date.now() + 10_000;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > until) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
