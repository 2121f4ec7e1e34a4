// TokenSource of livekit-client, as npm has it, in Node: the token endpoint, and its development shape.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { client, startCluster } from "./packages.mjs";

const { TokenSource, decodeTokenPayload } = client();

let cluster;
before(async () => {
  cluster = await startCluster();
});
after(() => cluster?.stop());

test("endpoint: room, identity and agent come back in the token", async () => {
  const source = TokenSource.endpoint(`${cluster.url}/api/connection-details`);
  const options = {
    roomName: "lobby", participantIdentity: "ann", participantName: "Ann", participantAttributes: { lang: "de" },
    agentName: "front-desk", agentMetadata: "for the desk",
  };
  const details = await source.fetch(options);
  assert.match(details.serverUrl, /^ws:\/\/127\.0\.0\.1:\d+$/);
  const claims = decodeTokenPayload(details.participantToken);
  assert.equal(claims.video.room, "lobby");
  assert.equal(claims.sub, "ann");
  assert.equal(claims.name, "Ann");
  assert.deepEqual(claims.attributes, { lang: "de" });
  assert.equal(claims.roomConfig.agents[0].agentName, "front-desk");
  assert.equal(claims.roomConfig.agents[0].metadata, "for the desk");
  assert.equal((await source.fetch(options)).participantToken, details.participantToken, "cached until it expires");
  assert.equal((await source.fetch({ ...options, roomName: "other" })).participantToken === details.participantToken, false);
  const validated = await fetch(`${cluster.url}/rtc/v1/validate?access_token=${details.participantToken}`);
  assert.equal(await validated.text(), "success");
});

test("endpoint: what is missing is invented", async () => {
  const source = TokenSource.endpoint(`${cluster.url}/api/connection-details`);
  const claims = decodeTokenPayload((await source.fetch({})).participantToken);
  assert.match(claims.video.room, /^room-/);
  assert.match(claims.sub, /^user-/);
});

test("developmentTokenServer: the sandbox's shape", async () => {
  const source = TokenSource.developmentTokenServer("my-sandbox", { baseUrl: cluster.url });
  const claims = decodeTokenPayload((await source.fetch({ agentName: "front-desk" })).participantToken);
  assert.equal(claims.roomConfig.agents[0].agentName, "front-desk");
});

test("endpoint: a refusal carries status and reason", async () => {
  const source = TokenSource.endpoint(`${cluster.url}/api/connection-details`,
    { headers: { authorization: "Bearer nonsense" } });
  await assert.rejects(source.fetch({}), /401[\s\S]*TOKEN_MALFORMED/);
});
