// The published Node SDK `@livekit/rtc-node`: two participants in one room do to each other what SDKs offer.
//   node node_sdk.mjs FOLDER_OF_THE_PACKAGE URL TOKEN_OF_ANN TOKEN_OF_BOB   prints what it saw as one line of JSON
import {createRequire} from 'node:module';
import {pathToFileURL} from 'node:url';

const [folder, url, ...tokens] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${folder}/package.json`));
const {AudioFrame, AudioSource, AudioStream, LocalAudioTrack, Room, RoomEvent, TrackPublishOptions, TrackSource, dispose} =
  require('@livekit/rtc-node');
const RATE = 48000;
const SECONDS = 20;

async function until(condition, what) {
  for (let i = 0; i < SECONDS * 20; ++i) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} did not happen`);
}

async function join(token) {
  const room = new Room();
  const seen = {heard: 0, texts: [], files: [], attributes: {}};
  room.on(RoomEvent.TrackSubscribed, async (track) => {
    for await (const frame of new AudioStream(track, RATE, 1)) {
      seen.heard += frame.data.filter((sample) => Math.abs(sample) > 1000).length;
    }
  });
  room.on(RoomEvent.ParticipantAttributesChanged, (changed) => Object.assign(seen.attributes, changed));
  room.registerTextStreamHandler('chat', async (reader, {identity: who}) => seen.texts.push([who, await reader.readAll()]));
  room.registerByteStreamHandler('files', async (reader, {identity: who}) => {
    const parts = await reader.readAll();
    seen.files.push([who, parts.reduce((sum, part) => sum + part.length, 0)]);
  });
  await room.connect(url, token, {autoSubscribe: true, dynacast: false});
  return {room, seen, me: room.localParticipant};
}

const ann = await join(tokens[0]);
const bob = await join(tokens[1]);
const source = new AudioSource(RATE, 1);
const track = LocalAudioTrack.createAudioTrack('microphone', source);
const options = new TrackPublishOptions();
options.source = TrackSource.SOURCE_MICROPHONE;
await ann.me.publishTrack(track, options);
let sounding = true;
const sound = (async () => {
  for (let at = 0; sounding; at += RATE / 100) {
    const tone = Int16Array.from({length: RATE / 100}, (_, i) => 8000 * Math.sin((at + i) * 440 * 2 * Math.PI / RATE));
    await source.captureFrame(new AudioFrame(tone, RATE, 1, tone.length));
  }
})();
await until(() => bob.seen.heard > RATE / 2, 'hearing the tone');
sounding = false;
await sound;

await ann.me.sendText('a long story '.repeat(3000), {topic: 'chat'});
await until(() => bob.seen.texts.length === 1, 'the text');
const writer = await bob.me.streamBytes({topic: 'files', name: 'cat.png', mimeType: 'image/png'});
await writer.write(new Uint8Array(40_000));
await writer.close();
await until(() => ann.seen.files.length === 1, 'the file');
bob.me.registerRpcMethod('add', async ({payload}) => String(JSON.parse(payload).reduce((a, b) => a + b)));
const sum = await ann.me.performRpc({destinationIdentity: 'bob', method: 'add', payload: '[1, 2, 3]'});
const code = (to, method) => ann.me.performRpc({destinationIdentity: to, method, payload: ''}).then(() => 0, (e) => e.code);
const codes = [await code('bob', 'unknown'), await code('nobody', 'add')];
await ann.me.setAttributes({mood: 'good'});
await until(() => bob.seen.attributes.mood === 'good', 'the attributes');
console.log(JSON.stringify({ann: ann.seen, bob: {...bob.seen, texts: bob.seen.texts.map(([who, text]) => [who, text.length])},
                            sum, codes}));
await ann.room.disconnect();
await bob.room.disconnect();
await dispose();
process.exit(0);
