// The moves of docs/migrate-from-livekit.md, word for word but for the address: each block of the page that says so is run.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { sdk, startCluster } from "./packages.mjs";

const page = readFileSync(path.join(process.env.PARLEY_SOURCE_DIR, "docs", "migrate-from-livekit.md"), "utf8");
const blocks = [...page.matchAll(/<!-- run by tests\/livekit\/migrate_test\.mjs -->\n```js\n([\s\S]*?)```/g)].map((m) => m[1]);

let cluster, folder;
before(async () => {
  cluster = await startCluster();
  folder = mkdtempSync(path.join(os.tmpdir(), "parley-"));
  symlinkSync(path.resolve(process.env.PARLEY_BUILD_DIR, "livekit", "node_modules"), path.join(folder, "node_modules"));
});
after(() => {
  rmSync(folder, { recursive: true });
  return cluster?.stop();
});

// Runs the block and answers what it names.
async function run(block, names) {
  assert.match(block, /http:\/\/127\.0\.0\.1:7880/);
  const file = path.join(folder, `block-${names.join("-")}.mjs`);
  writeFileSync(file, block.replaceAll("http://127.0.0.1:7880", cluster.url) + `\nexport { ${names.join(", ")} };\n`);
  return import(pathToFileURL(file));
}

test("the page has its blocks", () => assert.equal(blocks.length, 2));

test("a front end gets its token", async () => {
  const { serverUrl, participantToken } = await run(blocks[0], ["serverUrl", "participantToken"]);
  assert.match(serverUrl, /^ws:/);
  const { TokenVerifier } = await sdk();
  const claims = await new TokenVerifier("devkey", "secret").verify(participantToken);
  assert.deepEqual(JSON.parse(claims.roomConfig.agents[0].metadata), { table: 4 });
});

test("a backend makes a room and asks for its agent", async () => {
  const { rooms, dispatches } = await run(blocks[1], ["rooms", "dispatches"]);
  assert.equal((await rooms.listRooms(["lobby"])).length, 1);
  assert.equal((await dispatches.listDispatch("lobby"))[0].metadata, '{"table": 4}');
});
