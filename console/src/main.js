// The console page: sign in, talk to an agent, see what runs.
import {Api} from './api.js';
import {Call} from './call.js';
import {LatencyChart} from './chart.js';

const $ = (id) => document.getElementById(id);
const kRefreshMs = 3000;
const kKept = 'parley.credentials'; // in this tab only

let api = null;
let call = null;
let starting = false;
let watching = null;
let timer = 0;
const chart = new LatencyChart($('chart'));

function problem(error) {
  $('problem').hidden = !error;
  $('problem').textContent = error ? String(error.message ?? error) : '';
}
const guarded = (work) => async (event) => {
  event?.preventDefault();
  problem(null);
  try {
    await work(event);
  } catch (error) {
    problem(error);
  }
};

// ---- signing in ----

async function signIn(credentials) {
  const candidate = new Api(credentials);
  await candidate.get('/api/metrics/summary');
  api = candidate;
  sessionStorage.setItem(kKept, JSON.stringify(credentials));
  $('sign-in').hidden = true;
  $('desk').hidden = false;
  $('sign-out').hidden = false;
  await listDevices();
  await refresh();
}

function signOut() {
  sessionStorage.removeItem(kKept);
  location.replace(location.pathname);
}

// ---- what there is and what runs ----

function rows(body, items, cells) {
  body.replaceChildren(...items.map((item) => {
    const row = document.createElement('tr');
    for (const cell of cells(item)) {
      const td = document.createElement('td');
      td.append(cell ?? '');
      row.append(td);
    }
    return row;
  }));
}

function ago(time) {
  const seconds = time ? Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000)) : NaN;
  if (Number.isNaN(seconds)) return '';
  if (seconds < 90) return `${seconds} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function watchButton(session) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = session.room;
  button.title = `Watch ${session.id}`;
  button.addEventListener('click', guarded(() => watch(session)));
  return button;
}

function showSummary(summary) {
  const numbers = {
    agents: summary.agents ?? '–', workers: summary.workers.count,
    slots: `${summary.workers.slotsUsed} / ${summary.workers.slots}`,
    calls: summary.sessions.running, waiting: summary.sessions.pending, people: summary.rooms.people,
  };
  $('summary').replaceChildren(...Object.entries(numbers).map(([name, value]) => {
    const pair = document.createElement('div');
    const term = document.createElement('dt');
    const number = document.createElement('dd');
    term.textContent = name;
    number.textContent = value;
    pair.append(term, number);
    return pair;
  }));
}

function offerAgents(agents) {
  const select = $('agent');
  const names = agents.map((agent) => agent.id);
  if (names.join() === [...select.options].map((option) => option.value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...agents.map((agent) => new Option(agent.name || agent.id, agent.id)));
  if (names.includes(chosen)) select.value = chosen;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const [summary, agents, workers, sessions] = await Promise.all([
      api.get('/api/metrics/summary'), api.get('/api/agents'), api.get('/api/workers'), api.get('/api/sessions')]);
    showSummary(summary);
    offerAgents(agents.agents);
    $('start').disabled = starting || Boolean(call) || agents.agents.length === 0;
    rows($('agents'), agents.agents, (agent) => [agent.id, agent.name, String(agent.version ?? ''), agent.pool]);
    rows($('workers'), workers.workers, (worker) =>
      [worker.hostname, worker.pool, worker.state, `${worker.slotsUsed} / ${worker.slots}`, worker.load.toFixed(2)]);
    rows($('sessions'), sessions.sessions, (session) =>
      [session.agentName, watchButton(session), session.state, ago(session.createTime)]);
    if ($('problem').dataset.from === 'refresh') problem(null);
    delete $('problem').dataset.from;
  } catch (error) {
    problem(error);
    $('problem').dataset.from = 'refresh';
  }
  timer = setTimeout(refresh, kRefreshMs);
}

// ---- watching somebody else's call ----

function describe(event) {
  if (event.type === 'job') return [event.event.type.replaceAll('_', ' '), event.event.reason ?? ''];
  if (event.type === 'agent') return [event.identity, event.state || 'left'];
  if (event.type === 'turn') return ['turn', `answered after ${Math.round(event.total_ms)} ms`];
  if (event.type === 'stalled') return ['stalled', `${event.stage}, ${event.waited_ms} ms`];
  return null;
}

async function watch(session) {
  watching?.abort();
  const mine = watching = new AbortController();
  const log = $('watch-log');
  log.replaceChildren();
  $('watch-title').textContent = `${session.agentName} in ${session.room}`;
  $('watch').hidden = false;
  try {
    await api.watch(`/api/sessions/${encodeURIComponent(session.id)}/events`, (event) => {
      if (mine.signal.aborted) return;
      if (event.type === 'transcript') return said(log, {segment: event.segmentId, who: event.identity, ...event});
      const line = describe(event);
      if (line) add(log, '', line[0], line[1]);
    }, mine.signal);
    if (!mine.signal.aborted) add(log, '', 'the session', 'has ended');
  } catch (error) {
    if (!mine.signal.aborted) throw error;
  }
}

function stopWatching() {
  watching?.abort();
  $('watch').hidden = true;
}

// ---- a call of one's own ----

const kMaxLines = 500;

function add(log, kind, who, text) {
  const line = document.createElement('li');
  const name = document.createElement('b');
  const words = document.createElement('span');
  line.className = kind;
  name.textContent = who;
  words.textContent = text;
  line.append(name, words);
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(line);
  if (log.children.length > kMaxLines) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
  return line;
}

// What somebody said: one line a segment, which changes until it is final.
function said(log, {segment, who, agent, text, final}) {
  let line = [...log.children].findLast((one) => one.dataset.segment === segment && one.dataset.who === who);
  if (!line) {
    if (!text) return;
    line = add(log, '', who, '');
    line.dataset.segment = segment;
    line.dataset.who = who;
  }
  line.className = `${agent ? 'agent' : 'you'}${final ? '' : ' interim'}`;
  line.lastElementChild.textContent = text;
}

function inCall(yes) {
  $('start').disabled = yes;
  $('agent').disabled = yes;
  for (const id of ['mute', 'hang-up', 'text', 'send']) $(id).disabled = !yes;
  if (!yes) {
    $('mute').setAttribute('aria-pressed', 'false');
    $('level').value = 0;
  }
}

async function start() {
  if (starting || call) return;
  starting = true;
  inCall(true);
  chart.clear();
  $('transcript').replaceChildren();
  $('latency').hidden = true;
  try {
    call = await Call.start(api, {
      agent: $('agent').value, microphone: $('microphone').value, speaker: $('speaker').value,
      on: {
        state: (text) => { $('state').textContent = text; },
        transcript: (one) => said($('transcript'), {...one, who: one.agent ? 'Agent' : 'You'}),
        turn: (report) => { $('latency').hidden = false; chart.add(report); },
        level: (value) => { $('level').value = value; },
        ended: () => {
          call = null;
          inCall(false);
          $('state').textContent = 'the call has ended';
        },
      },
    });
    if (call.ended) call = null; // it was cut while it began
    await listDevices(); // their names are known once the microphone was allowed
  } catch (error) {
    call = null;
    inCall(false);
    $('state').textContent = 'not in a call';
    throw error;
  } finally {
    starting = false;
  }
}

async function write() {
  const text = $('text').value.trim();
  if (!text || !call) return;
  $('text').value = '';
  await call.write(text);
  add($('transcript'), 'you', 'You', text);
}

async function mute() {
  const muted = $('mute').getAttribute('aria-pressed') !== 'true';
  await call.setMuted(muted);
  $('mute').setAttribute('aria-pressed', String(muted));
}

async function listDevices() {
  const devices = await navigator.mediaDevices?.enumerateDevices() ?? [];
  const fill = (select, kind, name) => {
    const chosen = select.value;
    const found = devices.filter((device) => device.kind === kind && device.deviceId);
    select.replaceChildren(new Option('Default', ''), ...found.filter((device) => device.deviceId !== 'default').map((device, i) =>
      new Option(device.label || `${name} ${i + 1}`, device.deviceId)));
    if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
  };
  fill($('microphone'), 'audioinput', 'Microphone');
  fill($('speaker'), 'audiooutput', 'Loudspeaker');
  $('speaker-label').hidden = !('setSinkId' in HTMLMediaElement.prototype);
}

async function main() {
  $('missing').hidden = true;
  $('key-form').addEventListener('submit', guarded(() => signIn({key: $('key').value.trim(), secret: $('secret').value})));
  $('token-form').addEventListener('submit', guarded(() => signIn({token: $('token').value.trim()})));
  $('sign-out').addEventListener('click', signOut);
  $('start-form').addEventListener('submit', guarded(start));
  $('hang-up').addEventListener('click', guarded(() => call?.end()));
  $('mute').addEventListener('click', guarded(mute));
  $('text-form').addEventListener('submit', guarded(write));
  $('watch-stop').addEventListener('click', stopWatching);
  $('microphone').addEventListener('change', guarded(() => call?.useMicrophone($('microphone').value)));
  $('speaker').addEventListener('change', guarded(() => call?.useSpeaker($('speaker').value)));
  navigator.mediaDevices?.addEventListener('devicechange', guarded(listDevices));
  addEventListener('pagehide', () => call?.end());

  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given) history.replaceState(null, '', location.pathname); // out of sight, and out of the history
  const kept = given ? {token: given} : JSON.parse(sessionStorage.getItem(kKept) ?? 'null');
  try {
    if (kept) return await signIn(kept);
  } catch (error) {
    sessionStorage.removeItem(kKept);
    problem(error);
  }
  $('sign-in').hidden = false;
}

main().catch(problem);
