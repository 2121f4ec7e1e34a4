// livekit-server-sdk (Node) as npm has it, against a cluster of real processes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { eventually, sdk, startCluster } from "./packages.mjs";

const { AccessToken, AgentDispatchClient, DataPacket_Kind, RoomAgentDispatch, RoomConfiguration, RoomServiceClient,
  TokenVerifier } = await sdk();

let cluster, rooms, dispatches;
before(async () => {
  cluster = await startCluster();
  rooms = new RoomServiceClient(cluster.url, "devkey", "secret");
  dispatches = new AgentDispatchClient(cluster.url, "devkey", "secret");
  const definition = readFileSync(path.join(process.env.PARLEY_SOURCE_DIR, "examples", "front-desk.yaml"), "utf8");
  const registered = await fetch(`${cluster.url}/api/agents/register`, {
    method: "POST", body: definition, headers: { authorization: `Bearer ${await agentAdmin()}` },
  });
  assert.equal(registered.status, 201, await registered.text());
});
after(() => cluster?.stop());

// The SDK signs no agent.admin; what it signs is signed again with it.
async function agentAdmin() {
  const token = new AccessToken("devkey", "secret", { identity: "admin" });
  token.grants.agent = { admin: true };
  return token.toJwt();
}

const refused = (code) => (error) => {
  assert.equal(error.code, code, `${error}`);
  return true;
};

test("rooms are made, listed, changed and deleted", async () => {
  const room = await rooms.createRoom({ name: "hall", emptyTimeout: 60, maxParticipants: 5, metadata: "m" });
  assert.match(room.sid, /^RM_/);
  assert.equal(room.emptyTimeout, 60);
  assert.equal((await rooms.listRooms(["hall"]))[0].metadata, "m");
  assert.equal((await rooms.updateRoomMetadata("hall", "n")).metadata, "n");
  await rooms.deleteRoom("hall");
  await assert.rejects(rooms.deleteRoom("hall"), refused("not_found"));
  await assert.rejects(rooms.listParticipants("hall"), refused("not_found"));
});

test("an agent is dispatched, seen in its room, changed, muted, told, removed", async () => {
  const made = await dispatches.createDispatch("lobby", "front-desk", { metadata: "{}" });
  assert.match(made.id, /^AD_/);
  const running = await eventually("a running job", async () => {
    const [one] = await dispatches.listDispatch("lobby");
    return one?.state?.jobs[0]?.state?.status === 1 && one;
  });
  assert.equal(running.id, made.id);
  assert.ok(running.state.jobs[0].state.startedAt > 1_700_000_000_000_000_000n);
  const agent = await eventually("an agent with a track", async () => {
    const [one] = await rooms.listParticipants("lobby").catch(() => []);
    return one?.tracks.length > 0 && one;
  });
  assert.equal(agent.kind, 4);
  const identity = agent.identity;
  const changed = await rooms.updateParticipant("lobby", identity, { name: "Desk", attributes: { floor: "3" } });
  assert.equal(changed.name, "Desk");
  assert.equal((await rooms.getParticipant("lobby", identity)).attributes.floor, "3");
  assert.equal((await rooms.mutePublishedTrack("lobby", identity, agent.tracks[0].sid, true)).muted, true);
  await rooms.sendData("lobby", new TextEncoder().encode("hi"), DataPacket_Kind.RELIABLE,
    { topic: "t", destinationIdentities: [identity] });
  await dispatches.deleteDispatch(made.id, "lobby");
  await eventually("the agent has left", async () => (await rooms.listParticipants("lobby")).length === 0);
  assert.equal((await dispatches.listDispatch("lobby")).length, 0);
  await assert.rejects(rooms.removeParticipant("lobby", identity), refused("not_found"));
});

test("a dispatch whose agent nobody serves is listed as pending", async () => {
  const made = await dispatches.createDispatch("empty", "nobody");
  const got = await dispatches.getDispatch(made.id, "empty");
  assert.equal(got.state.jobs[0].state.status, 0);
});

test("tokens of the SDK are taken here, with what they configure", async () => {
  const token = new AccessToken("devkey", "secret", { identity: "ann", name: "Ann", attributes: { lang: "de" }, ttl: "5m" });
  token.addGrant({ roomJoin: true, room: "configured", canPublish: true });
  token.roomConfig = new RoomConfiguration({ agents: [new RoomAgentDispatch({ agentName: "front-desk" })] });
  const answer = await fetch(`${cluster.url}/rtc/v1/validate?access_token=${await token.toJwt()}`);
  assert.equal(await answer.text(), "success");
  const forged = new AccessToken("devkey", "another secret", { identity: "ann" });
  forged.addGrant({ roomJoin: true, room: "configured" });
  assert.equal((await fetch(`${cluster.url}/rtc/v1/validate?access_token=${await forged.toJwt()}`)).status, 401);
  await assert.rejects(new RoomServiceClient(cluster.url, "devkey", "another secret").listRooms(),
    refused("unauthenticated"));
});

test("tokens of ours are taken by the SDK's verifier", async () => {
  const answer = await fetch(`${cluster.url}/api/connection-details`, {
    method: "POST",
    body: JSON.stringify({ room_name: "lobby", participant_identity: "ann", participant_attributes: { lang: "de" },
      room_config: { agents: [{ agent_name: "front-desk", metadata: "m" }] } }),
  });
  assert.equal(answer.status, 201);
  const claims = await new TokenVerifier("devkey", "secret").verify((await answer.json()).participant_token);
  assert.equal(claims.sub, "ann");
  assert.equal(claims.video.room, "lobby");
  assert.equal(claims.video.roomJoin, true);
  assert.equal(claims.attributes.lang, "de");
  assert.equal(claims.roomConfig.agents[0].agentName, "front-desk");
});
