// Runs a fuzz target without libFuzzer: the seeds of its corpus as they are, then mutations of them
// from a fixed seed, so that every build (sanitizers included) gives each parser of outside bytes a
// short beating and a failure repeats.
//
//   x_fuzz CORPUS_DIR [--runs N] [--seed S]     x_fuzz FILE   one input, e.g. a crash that
//   libFuzzer found
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMaxInput = 64 << 10;

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Mutate(const std::vector<std::string>& seeds) {
    std::string input = seeds[Below(seeds.size())];
    const size_t steps = 1 + Below(8);
    for (size_t i = 0; i < steps; ++i) Step(input, seeds);
    if (input.size() > kMaxInput) input.resize(kMaxInput);
    return input;
  }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void Step(std::string& input, const std::vector<std::string>& seeds) {
    static constexpr std::string_view kInteresting[] = {std::string_view("\0", 1),
                                                        "\xff\xff\xff\xff",
                                                        "\x7f",
                                                        "{",
                                                        "}",
                                                        "[",
                                                        "]",
                                                        "\"",
                                                        "\\",
                                                        "\n",
                                                        ": ",
                                                        "*",
                                                        "(",
                                                        "a*)*",
                                                        "&a",
                                                        "-1",
                                                        "1e309",
                                                        "\xed\xa0\x80",
                                                        "../",
                                                        "%00",
                                                        "%",
                                                        "\r\n\r\n"};
    const size_t at = Below(input.size() + 1);
    switch (Below(6)) {
      case 0:
        if (!input.empty()) input[Below(input.size())] ^= static_cast<char>(1u << Below(8));
        break;
      case 1:
        input.resize(at);
        break;
      case 2:
        input.insert(at, kInteresting[Below(std::size(kInteresting))]);
        break;
      case 3: {
        const std::string& other = seeds[Below(seeds.size())];
        const size_t from = Below(other.size() + 1);
        input.insert(at, other.substr(from, Below(64)));
        break;
      }
      case 4:
        input.erase(at, Below(16));
        break;
      default: {
        const std::string piece = input.substr(at, Below(32));
        for (size_t i = Below(64); i > 0 && input.size() < kMaxInput; --i) input.insert(at, piece);
      }
    }
  }

  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  std::filesystem::path corpus;
  uint64_t runs = 5'000;
  uint64_t seed = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--runs" && i + 1 < argc) {
      runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      corpus = argument;
    }
  }
  if (std::filesystem::is_regular_file(corpus)) {
    Run(Read(corpus));
    return 0;
  }
  std::vector<std::string> seeds;
  if (std::filesystem::is_directory(corpus)) {
    for (const auto& entry : std::filesystem::directory_iterator(corpus))
      seeds.push_back(Read(entry.path()));
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "no seeds in \"%s\": a fuzz target needs at least one valid input\n",
                 corpus.c_str());
    return 1;
  }
  Run("");
  for (const std::string& input : seeds) Run(input);
  Mutator mutator(seed);
  for (uint64_t i = 0; i < runs; ++i) Run(mutator.Mutate(seeds));
  std::printf("%zu seeds, %llu mutations, no failure\n", seeds.size(),
              static_cast<unsigned long long>(runs));
  return 0;
}
