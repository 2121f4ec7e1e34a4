#pragma once
#include <absl/status/status.h>
#include <pocketsphinx.h>

#include <string>
#include <vector>

namespace parley::engines {

// Mixes a small model of `phrases` with the language model of the search `base` and adds the result
// to `decoder` as the search `name`.
//   InvalidArgument  a phrase has words that the dictionary lacks (named), or none at all
absl::Status AddPhraseModel(ps_decoder_t* decoder, cmd_ln_t* config, const char* base,
                            const char* name, const std::vector<std::string>& phrases);

// The trigram model of `phrases` as ARPA text, every phrase equally likely. Phrases are words with
// single spaces between.
std::string PhraseArpa(const std::vector<std::string>& phrases);

}  // namespace parley::engines
