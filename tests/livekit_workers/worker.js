// A worker on LiveKit's own package, as its users write one. What a job does stands in its metadata; that it did so it writes
// to the file that EVIDENCE names, one JSON object a line.
import { ServerOptions, cli, defineAgent } from '@livekit/agents';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const note = (fields) => appendFileSync(process.env.EVIDENCE, JSON.stringify({ pid: process.pid, ...fields }) + '\n');

export default defineAgent({
  entry: async (job) => {
    const wish = JSON.parse(job.job.metadata || '{}');
    note({ event: 'began', job: job.job.id, room: job.job.room.name });
    if (wish.join) {
      await job.connect();
      note({ event: 'joined', job: job.job.id, identity: job.room.localParticipant.identity });
    }
    if (wish.do === 'crash') process.exit(3);
    if (wish.do === 'raise') throw new Error('as asked');
    if (wish.do === 'end') return job.shutdown();
    // The job goes on when this returns, until it is shut down.
    job.addShutdownCallback(async () => note({ event: 'told to end', job: job.job.id }));
    if (wish.seconds) setTimeout(() => job.shutdown(), wish.seconds * 1000);
  },
});

const requestFunc = async (request) => {
  const wish = JSON.parse(request.job.metadata || '{}');
  if (wish.answer === 'reject' || wish.answer === 'pass') return request.reject();
  await request.accept('Echo');
};

cli.runApp(
  new ServerOptions({
    agent: fileURLToPath(import.meta.url),
    agentName: process.env.AGENT,
    requestFunc,
    loadFunc: async () => 0,
    numIdleProcesses: Number(process.env.IDLE ?? '1'),
    initializeProcessTimeout: 60_000, // machines that run tests are busy
    host: '127.0.0.1',
    port: Number(process.env.HEALTH_PORT),
  }),
);
