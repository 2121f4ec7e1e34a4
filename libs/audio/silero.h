#pragma once
// Silero's neural voice detector, version 6, for 16 kHz: a forward pass of our own (about 0.1 ms
// for 32 ms of sound) with the weights that its published Python package ships as
// silero_vad/data/silero_vad_16k_op15.onnx (MIT licence).
#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "audio/vad.h"

namespace parley::audio {

// The weights: 1.2 MiB, shared by all who listen. Immutable; thread-safe.
class SileroModel {
 public:
  static constexpr size_t kMaxFileBytes = 16 << 20;

  // Blocks on the disk.
  //   NotFound         the file cannot be read
  //   InvalidArgument  it is not that model
  static absl::StatusOr<std::shared_ptr<const SileroModel>> Load(const std::string& path);
  // `onnx`: the file's bytes.
  static absl::StatusOr<std::shared_ptr<const SileroModel>> Parse(std::string_view onnx);

 private:
  friend class SileroPass;
  SileroModel() = default;
  // Weights with the outputs innermost: [input][tap][output].
  struct Layer {
    std::vector<float> weights;
    std::vector<float> bias;
  };
  std::vector<float> basis_;  // [sample 256][output 258]
  Layer encoder_[4];
  std::vector<float> input_gates_;   // [input 128][gate 512]
  std::vector<float> hidden_gates_;  // [input 128][gate 512]
  std::vector<float> gate_bias_;     // [gate 512]
  std::vector<float> output_;        // [input 128]
  float output_bias_ = 0;
};

// One stream: 512 new samples at a time make one probability. Allocates nothing after construction.
class SileroPass {
 public:
  static constexpr size_t kChunk = 512;
  explicit SileroPass(std::shared_ptr<const SileroModel> model);
  // `samples`: kChunk of them, within -1 to 1. How likely they are speech, 0 to 1.
  float Run(const float* samples);
  void Reset();

 private:
  static constexpr size_t kContext = 64;
  const std::shared_ptr<const SileroModel> model_;
  std::vector<float> padded_;  // context, chunk, reflection
  std::vector<float> a_;       // activations, [frame][channel]
  std::vector<float> b_;
  std::vector<float> hidden_;
  std::vector<float> cell_;
  std::vector<float> gates_;
};

struct SileroVadOptions {
  float speech_from = 0.5F;    // this likely: speech has begun
  float speech_until = 0.35F;  // less likely than this: it is over
};
// Each decision is that of the latest whole 32 ms.
std::unique_ptr<Vad> NewSileroVad(std::shared_ptr<const SileroModel> model,
                                  const SileroVadOptions& options = {});

}  // namespace parley::audio
