"""A worker on LiveKit's own package, as its users write one. What a job does stands in its metadata; that it did so it writes
to the file that EVIDENCE names, one JSON object a line."""
import asyncio
import json
import os

from livekit import agents


def note(**fields):
    with open(os.environ["EVIDENCE"], "a") as file:
        file.write(json.dumps({"pid": os.getpid(), **fields}) + "\n")


async def on_request(request: agents.JobRequest):
    wish = json.loads(request.job.metadata or "{}")
    if wish.get("answer") == "reject":
        return await request.reject()
    if wish.get("answer") == "pass":
        return await request.reject(terminate=False)
    await request.accept(name="Echo", attributes={"tone": "kind"})


server = agents.AgentServer(
    host="127.0.0.1", port=0, num_idle_processes=int(os.environ.get("IDLE", "1")), load_fnc=lambda: 0.0, drain_timeout=60,
    initialize_process_timeout=60)  # machines that run tests are busy


@server.rtc_session(agent_name=os.environ["AGENT"], on_request=on_request)
async def entrypoint(job: agents.JobContext):
    wish = json.loads(job.job.metadata or "{}")
    note(event="began", job=job.job.id, room=job.job.room.name)
    if wish.get("join"):
        await job.connect()
        note(event="joined", job=job.job.id, identity=job.room.local_participant.identity,
             name=job.room.local_participant.name, attributes=dict(job.room.local_participant.attributes))
    if wish.get("do") == "crash":
        os._exit(3)
    if wish.get("do") == "raise":
        raise RuntimeError("as asked")
    if wish.get("do") == "end":
        job.shutdown()
        return

    # The job goes on when this returns, until it is shut down.
    async def on_shutdown(reason):
        note(event="told to end", job=job.job.id)

    job.add_shutdown_callback(on_shutdown)
    if "seconds" in wish:
        asyncio.get_running_loop().call_later(wish["seconds"], job.shutdown)


if __name__ == "__main__":
    agents.cli.run_app(server)
