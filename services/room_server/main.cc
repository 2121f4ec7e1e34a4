#include "room_server/room_server.h"

int main(int argc, char** argv) {
  return parley::service::Main<parley::RoomServerConfig>(
      argc, argv, "room-server",
      "Live rooms: who is in them, their audio, and which attempt of an agent may speak.",
      [](const parley::RoomServerConfig& config, parley::service::Context& context) {
        return parley::room_server::Run(config, context);
      });
}
