// webhooks.mjs FILE: takes each {"authorization", "body"} line as WebhookReceiver of livekit-server-sdk does.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { sdk } from "./packages.mjs";

const { WebhookReceiver } = await sdk();
const receiver = new WebhookReceiver("devkey", "secret");
const hooks = readFileSync(process.argv[2], "utf8").trim().split("\n").map((line) => JSON.parse(line));
const events = [];
for (const hook of hooks) {
  const event = await receiver.receive(hook.body, hook.authorization);
  events.push(event.event);
  assert.match(event.id, /^EV_/);
  assert.equal(event.room.name, "lobby");
  await assert.rejects(receiver.receive(hook.body.replace("lobby", "lobbx"), hook.authorization));
}
assert.deepEqual(events.slice(-3), ["dispatch_created", "agent_job_ended", "dispatch_ended"]);
console.log(`${events.length} webhooks taken, as many changed ones refused`);
