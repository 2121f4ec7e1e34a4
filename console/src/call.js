// One call with an agent, through LiveKit's client.
import {Room, RoomEvent, Track, createLocalAudioTrack} from 'livekit-client';

// `on`: state(text), transcript({segment, who, agent, text, final}), turn(report), level(0…1), ended(why).
export class Call {
  static async start(api, {agent, microphone, speaker, on}) {
    const session = await api.post('/api/sessions', {agent});
    const call = new Call(session, on);
    try {
      await call.join(microphone, speaker);
    } catch (error) {
      await call.end();
      throw error;
    }
    return call;
  }

  constructor(session, on) {
    this.session = session;
    this.on = on;
    this.room = new Room({adaptiveStream: false, dynacast: false});
  }

  async join(microphone, speaker) {
    const {room, on} = this;
    room.on(RoomEvent.ParticipantAttributesChanged, (changed, who) => {
      if (who.isAgent && 'lk.agent.state' in changed) on.state(changed['lk.agent.state']);
    });
    room.on(RoomEvent.TrackSubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) document.body.append(track.attach());
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
    room.on(RoomEvent.DataReceived, (payload, who, kind, topic) => {
      if (topic !== 'parley.turn_report' || !who?.isAgent) return;
      on.turn(JSON.parse(new TextDecoder().decode(payload)));
    });
    room.on(RoomEvent.ParticipantDisconnected, (who) => {
      if (who.isAgent) on.state('the agent left');
    });
    room.on(RoomEvent.Reconnecting, () => on.state('reconnecting'));
    room.on(RoomEvent.Reconnected, () => on.state('connected'));
    room.on(RoomEvent.AudioPlaybackStatusChanged, () => room.startAudio().catch(() => {}));
    room.on(RoomEvent.Disconnected, () => this.over());
    room.registerTextStreamHandler('lk.transcription', (reader, who) => this.hear(reader, who));
    on.state('joining');
    await room.connect(this.session.serverUrl, this.session.participantToken);
    on.state('waiting for the agent');
    if (speaker) await room.switchActiveDevice('audiooutput', speaker).catch(() => {});
    this.track = await createLocalAudioTrack({
      deviceId: microphone || undefined, echoCancellation: true, noiseSuppression: true, autoGainControl: true});
    await room.localParticipant.publishTrack(this.track, {source: Track.Source.Microphone});
    this.timer = setInterval(() => on.level(room.localParticipant.audioLevel), 100);
    for (const who of room.remoteParticipants.values()) {
      if (who.isAgent && who.attributes['lk.agent.state']) on.state(who.attributes['lk.agent.state']);
    }
  }

  async hear(reader, who) {
    const attributes = reader.info.attributes ?? {};
    const agent = who.identity !== this.room.localParticipant.identity;
    const segment = attributes['lk.segment_id'] ?? reader.info.id;
    const final = attributes['lk.transcription_final'] === 'true';
    let text = '';
    try {
      for await (const piece of reader) {
        text += piece;
        this.on.transcript({segment, who: who.identity, agent, text, final: false});
      }
    } catch {
      // The stream was cut with the call: what was heard stays.
    }
    this.on.transcript({segment, who: who.identity, agent, text, final: agent || final});
  }

  async setMuted(muted) {
    await (muted ? this.track.mute() : this.track.unmute());
  }

  useMicrophone(device) {
    return this.track?.setDeviceId(device);
  }

  useSpeaker(device) {
    return this.room.switchActiveDevice('audiooutput', device);
  }

  async write(text) {
    await this.room.localParticipant.sendText(text, {topic: 'lk.chat'});
  }

  async end() {
    await this.room.disconnect();
    this.over();
  }

  over() {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.timer);
    this.track?.stop();
    document.querySelectorAll('body > audio').forEach((element) => element.remove());
    this.on.ended();
  }
}
