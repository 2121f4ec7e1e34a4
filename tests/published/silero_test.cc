// Our forward pass against ONNX Runtime's, on the file of the published package.
#include "audio/silero.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace parley::audio {
namespace {

std::string Folder() { return std::string(std::getenv("PARLEY_PUBLISHED")) + "/silero/"; }

std::vector<float> Floats(const std::string& name) {
  std::ifstream file(Folder() + name, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

TEST(SileroTest, SaysWhatTheRuntimeSays) {
  const auto model = SileroModel::Load(Folder() + "model.onnx");
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<float> input = Floats("input");
  const std::vector<float> expected = Floats("expected");
  ASSERT_EQ(input.size(), expected.size() * SileroPass::kChunk);
  ASSERT_GT(expected.size(), 100U);
  SileroPass pass(*model);
  float worst = 0;
  std::vector<double> micros;
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const float said = pass.Run(input.data() + i * SileroPass::kChunk);
    micros.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
            .count());
    worst = std::max(worst, std::abs(said - expected[i]));
  }
  std::sort(micros.begin(), micros.end());
  fmt::print("{} chunks: worst difference {:.1e}; {:.0f} us p50, {:.0f} us p99 for 32 ms\n",
             expected.size(), worst, micros[micros.size() / 2], micros[micros.size() * 99 / 100]);
  EXPECT_LT(worst, 1e-4);
  EXPECT_GT(*std::max_element(expected.begin(), expected.end()), 0.5F);
  EXPECT_LT(*std::min_element(expected.begin(), expected.end()), 0.1F);
}

}  // namespace
}  // namespace parley::audio
