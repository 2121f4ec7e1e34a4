#pragma once
#include <vector>

#include "registry/definition.h"
#include "session/types.h"

namespace parley::session {

// What an agent's definition says about turn-taking and limits.
Options OptionsOf(const registry::AgentDefinition& definition);
// What the model of one of its agents is told; `own` is what the definition says of that agent.
std::string InstructionsOf(const registry::AgentDefinition& definition, const std::string& own);
// Its agents, the first first.
std::vector<Character> CharactersOf(const registry::AgentDefinition& definition);

Context ContextOf(registry::HandoffContext context);

}  // namespace parley::session
