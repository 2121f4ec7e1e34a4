"""livekit-api (Python) as PyPI has it, against a cluster of real processes."""
import asyncio
import json
import os
import subprocess
import time
import unittest
import urllib.request

from livekit import api
from livekit.protocol import agent, agent_dispatch, room
from livekit.protocol.agent import JS_RUNNING

BUILD = os.environ["PARLEY_BUILD_DIR"]
SOURCE = os.environ["PARLEY_SOURCE_DIR"]


class ServerApiTest(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = subprocess.Popen([os.path.join(BUILD, "bin", "parley-test-cluster")],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = cls.cluster.stdout.readline()
        assert line, "the cluster did not start; see its message above"
        cls.url = "http://" + json.loads(line)["api-server"]
        with open(os.path.join(SOURCE, "examples", "front-desk.yaml"), "rb") as definition:
            request = urllib.request.Request(cls.url + "/api/agents/register", data=definition.read(), headers={
                "Authorization": "Bearer " + cls.agent_admin()})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 201

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stdin.close()
        cls.cluster.wait(timeout=20)
        cls.cluster.stdout.close()

    @staticmethod
    def agent_admin():
        import jwt  # what livekit-api itself signs with
        now = int(time.time())
        return jwt.encode({"iss": "devkey", "nbf": now, "exp": now + 600, "agent": {"admin": True}}, "secret", "HS256")

    async def asyncSetUp(self):
        self.livekit = api.LiveKitAPI(self.url, "devkey", "secret")
        self.addAsyncCleanup(self.livekit.aclose)

    async def eventually(self, what, look):
        until = time.monotonic() + 10
        while True:
            seen = await look()
            if seen:
                return seen
            self.assertLess(time.monotonic(), until, f"never: {what}")
            await asyncio.sleep(0.02)

    async def refused(self, call, code):
        with self.assertRaises(api.TwirpError) as caught:
            await call
        self.assertEqual(caught.exception.code, code)

    async def test_rooms(self):
        rooms = self.livekit.room
        room = await rooms.create_room(api.CreateRoomRequest(name="hall", empty_timeout=60, metadata="m"))
        self.assertTrue(room.sid.startswith("RM_"))
        listed = await rooms.list_rooms(api.ListRoomsRequest(names=["hall"]))
        self.assertEqual([r.metadata for r in listed.rooms], ["m"])
        changed = await rooms.update_room_metadata(api.UpdateRoomMetadataRequest(room="hall", metadata="n"))
        self.assertEqual(changed.metadata, "n")
        await rooms.delete_room(api.DeleteRoomRequest(room="hall"))
        await self.refused(rooms.delete_room(api.DeleteRoomRequest(room="hall")), "not_found")
        await self.refused(rooms.list_participants(api.ListParticipantsRequest(room="hall")), "not_found")

    async def test_agents_are_dispatched_and_managed(self):
        dispatches, rooms = self.livekit.agent_dispatch, self.livekit.room
        made = await dispatches.create_dispatch(
            api.CreateAgentDispatchRequest(agent_name="front-desk", room="lobby", metadata="{}"))
        self.assertTrue(made.id.startswith("AD_"))

        async def running():
            got = await dispatches.get_dispatch(made.id, "lobby")
            return got if got.state.jobs and got.state.jobs[0].state.status == JS_RUNNING else None
        got = await self.eventually("a running job", running)
        self.assertGreater(got.state.jobs[0].state.started_at, 1_700_000_000_000_000_000)

        async def agent_with_track():
            try:
                listed = await rooms.list_participants(api.ListParticipantsRequest(room="lobby"))
            except api.TwirpError:
                return None
            return next((p for p in listed.participants if p.tracks), None)
        agent = await self.eventually("an agent with a track", agent_with_track)
        self.assertEqual(agent.kind, 4)
        changed = await rooms.update_participant(api.UpdateParticipantRequest(
            room="lobby", identity=agent.identity, metadata="seen", attributes={"floor": "3"}))
        self.assertEqual((changed.metadata, changed.attributes["floor"]), ("seen", "3"))
        muted = await rooms.mute_published_track(api.MuteRoomTrackRequest(
            room="lobby", identity=agent.identity, track_sid=agent.tracks[0].sid, muted=True))
        self.assertTrue(muted.track.muted)
        await rooms.send_data(api.SendDataRequest(room="lobby", data=b"hi", topic="t"))
        await rooms.remove_participant(api.RoomParticipantIdentity(room="lobby", identity=agent.identity))
        await dispatches.delete_dispatch(made.id, "lobby")
        self.assertEqual(await dispatches.list_dispatch("lobby"), [])

    def test_the_list_of_the_surface_has_every_field(self):
        with open(os.path.join(SOURCE, "docs", "livekit-surface.json"), encoding="utf-8") as file:
            rows = json.load(file)
        ours = {}
        for row in rows:
            if "message" in row:
                ours.setdefault(row["message"], {})[row["number"]] = row["name"].split(".")[1]
        for name, fields in ours.items():
            message = next(getattr(module, name) for module in (room, agent, agent_dispatch) if hasattr(module, name))
            self.assertEqual(fields, {field.number: field.name for field in message.DESCRIPTOR.fields}, name)
        self.assertGreater(len(ours), 20)

    async def test_tokens_both_ways(self):
        token = (api.AccessToken("devkey", "secret").with_identity("ann").with_attributes({"lang": "de"})
                 .with_grants(api.VideoGrants(room_join=True, room="lobby"))
                 .with_room_config(api.RoomConfiguration(agents=[api.RoomAgentDispatch(agent_name="front-desk")]))
                 .to_jwt())
        with urllib.request.urlopen(f"{self.url}/rtc/v1/validate?access_token={token}", timeout=10) as answer:
            self.assertEqual(answer.read(), b"success")
        request = urllib.request.Request(self.url + "/api/connection-details", data=json.dumps({
            "room_name": "lobby", "participant_identity": "bob",
            "room_config": {"agents": [{"agent_name": "front-desk"}]}}).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            ours = json.load(answer)["participant_token"]
        claims = api.TokenVerifier("devkey", "secret").verify(ours)
        self.assertEqual((claims.identity, claims.video.room, claims.video.room_join), ("bob", "lobby", True))
        self.assertEqual(claims.room_config.agents[0].agent_name, "front-desk")
        stranger = api.LiveKitAPI(self.url, "devkey", "another secret")
        self.addAsyncCleanup(stranger.aclose)
        await self.refused(stranger.room.list_rooms(api.ListRoomsRequest()), "unauthenticated")


if __name__ == "__main__":
    unittest.main()
