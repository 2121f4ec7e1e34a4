#pragma once
#include "registry/definition.h"
#include "session/types.h"

namespace parley::session {

// What an agent's definition says about turn-taking and limits.
Options OptionsOf(const registry::AgentDefinition& definition);

}  // namespace parley::session
