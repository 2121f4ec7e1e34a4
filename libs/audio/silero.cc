#include "audio/silero.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "audio/level.h"
#include "audio/pcm.h"
#include "base/status.h"

namespace parley::audio {
namespace {

constexpr size_t kWindow = 256;
constexpr size_t kHop = 128;
constexpr size_t kBins = 129;
constexpr size_t kFrames = 4;  // of one chunk
constexpr size_t kHidden = 128;
constexpr size_t kTaps = 3;

struct Shape {
  size_t in;
  size_t out;
  size_t stride;
};
constexpr std::array<Shape, 4> kEncoder = {Shape{kBins, 128, 1}, Shape{128, 64, 2},
                                           Shape{64, 64, 2}, Shape{64, 128, 1}};

// ---- the file: tensors by name, out of a protobuf that is read by hand ----

struct Tensor {
  std::vector<int64_t> shape;
  std::string_view bytes;  // floats, little-endian
};

// The fields of one message, one after another.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;      // of a varint
    std::string_view bytes;  // of a length-delimited one
  };
  // Nothing at the end, or where it is no message.
  std::optional<Field> Next() {
    uint64_t tag = 0;
    if (rest_.empty() || !Varint(&tag)) return std::nullopt;
    Field field{.number = tag >> 3};
    uint64_t size = 0;
    switch (tag & 7) {
      case 0:
        if (!Varint(&field.value)) return std::nullopt;
        return field;
      case 1:
        size = 8;
        break;
      case 2:
        if (!Varint(&size)) return std::nullopt;
        break;
      case 5:
        size = 4;
        break;
      default:
        return std::nullopt;
    }
    if (size > rest_.size()) return std::nullopt;
    field.bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return field;
  }
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

// onnx.TensorProto: dims 1, data_type 2, float_data 4, name 8, raw_data 9.
void AddTensor(std::string_view bytes, std::map<std::string, Tensor, std::less<>>& tensors) {
  constexpr uint64_t kFloat = 1;
  Tensor tensor;
  std::string name;
  uint64_t type = 0;
  for (Fields fields(bytes); auto field = fields.Next();) {
    if (field->number == 1 && field->bytes.empty()) {
      tensor.shape.push_back(static_cast<int64_t>(field->value));
    } else if (field->number == 1) {
      uint64_t one = 0;
      for (Fields packed(field->bytes); !packed.empty() && packed.Varint(&one);) {
        tensor.shape.push_back(static_cast<int64_t>(one));
      }
    } else if (field->number == 2) {
      type = field->value;
    } else if (field->number == 4 || field->number == 9) {
      tensor.bytes = field->bytes;
    } else if (field->number == 8) {
      name = field->bytes;
    }
  }
  if (type == kFloat) tensors[name] = std::move(tensor);
}

// onnx.ModelProto: graph 7; onnx.GraphProto: initializer 5.
std::map<std::string, Tensor, std::less<>> TensorsOf(std::string_view onnx) {
  std::map<std::string, Tensor, std::less<>> tensors;
  for (Fields model(onnx); auto graph = model.Next();) {
    if (graph->number != 7) continue;
    for (Fields fields(graph->bytes); auto field = fields.Next();) {
      if (field->number == 5) AddTensor(field->bytes, tensors);
    }
  }
  return tensors;
}

class Reader {
 public:
  explicit Reader(std::string_view onnx) : tensors_(TensorsOf(onnx)) {}

  std::vector<float> Take(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = tensors_.find(name);
    size_t count = 1;
    for (const int64_t one : shape) count *= static_cast<size_t>(one);
    std::vector<float> values(count);
    if (found == tensors_.end() || found->second.shape != shape ||
        found->second.bytes.size() != count * sizeof(float)) {
      if (missing_.empty()) missing_ = name;
      return values;
    }
    std::memcpy(values.data(), found->second.bytes.data(), count * sizeof(float));
    return values;
  }
  const std::string& missing() const { return missing_; }

 private:
  const std::map<std::string, Tensor, std::less<>> tensors_;
  std::string missing_;
};

// [out][in][tap] → [in][tap][out]
std::vector<float> OutputsInnermost(const std::vector<float>& weights, size_t out, size_t in,
                                    size_t taps) {
  std::vector<float> turned(weights.size());
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < in * taps; ++i) turned[i * out + o] = weights[o * in * taps + i];
  }
  return turned;
}

// out += weights * x; what the compiler turns into vector instructions.
void AddScaled(const float* weights, float x, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] += weights[i] * x;
}

float Sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

absl::StatusOr<std::shared_ptr<const SileroModel>> SileroModel::Load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) return NotFound("{} cannot be read", path);
  std::string bytes(kMaxFileBytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  absl::StatusOr<std::shared_ptr<const SileroModel>> model = Parse(bytes);
  if (!model.ok()) return Annotate(model.status(), path);
  return model;
}

absl::StatusOr<std::shared_ptr<const SileroModel>> SileroModel::Parse(std::string_view onnx) {
  if (onnx.size() > kMaxFileBytes) return InvalidArgument("larger than any model of this kind");
  Reader reader(onnx);
  std::shared_ptr<SileroModel> model(new SileroModel);
  constexpr int64_t kGates = 4 * kHidden;
  model->basis_ =
      OutputsInnermost(reader.Take("model.stft.forward_basis_buffer", {2 * kBins, 1, kWindow}),
                       2 * kBins, 1, kWindow);
  for (size_t i = 0; i < kEncoder.size(); ++i) {
    const std::string name = "model.encoder." + std::to_string(i) + ".reparam_conv.";
    const Shape& shape = kEncoder[i];
    const auto in = static_cast<int64_t>(shape.in);
    const auto out = static_cast<int64_t>(shape.out);
    model->encoder_[i].weights = OutputsInnermost(reader.Take(name + "weight", {out, in, kTaps}),
                                                  shape.out, shape.in, kTaps);
    model->encoder_[i].bias = reader.Take(name + "bias", {out});
  }
  const std::string rnn = "model.decoder.rnn.";
  model->input_gates_ =
      OutputsInnermost(reader.Take(rnn + "weight_ih", {kGates, kHidden}), kGates, kHidden, 1);
  model->hidden_gates_ =
      OutputsInnermost(reader.Take(rnn + "weight_hh", {kGates, kHidden}), kGates, kHidden, 1);
  model->gate_bias_ = reader.Take(rnn + "bias_ih", {kGates});
  const std::vector<float> more = reader.Take(rnn + "bias_hh", {kGates});
  for (size_t i = 0; i < more.size(); ++i) model->gate_bias_[i] += more[i];
  model->output_ = reader.Take("model.decoder.decoder.2.weight", {1, kHidden, 1});
  model->output_bias_ = reader.Take("model.decoder.decoder.2.bias", {1})[0];
  if (!reader.missing().empty()) {
    return InvalidArgument("not silero_vad_16k_op15.onnx: there is no {} as expected",
                           reader.missing());
  }
  return std::shared_ptr<const SileroModel>(std::move(model));
}

SileroPass::SileroPass(std::shared_ptr<const SileroModel> model)
    : model_(std::move(model)),
      padded_(kContext + kChunk + kContext),
      a_(kFrames * 2 * kBins),
      b_(kFrames * 2 * kBins),
      hidden_(kHidden),
      cell_(kHidden),
      gates_(4 * kHidden) {}

void SileroPass::Reset() {
  std::fill(padded_.begin(), padded_.end(), 0.0F);
  std::fill(hidden_.begin(), hidden_.end(), 0.0F);
  std::fill(cell_.begin(), cell_.end(), 0.0F);
}

float SileroPass::Run(const float* samples) {
  const SileroModel& model = *model_;
  // The end of the last chunk stands before this one, and its own end is mirrored behind it.
  constexpr size_t kEnd = kContext + kChunk;
  std::copy_n(padded_.begin() + kChunk, kContext, padded_.begin());
  std::copy_n(samples, kChunk, padded_.begin() + kContext);
  for (size_t i = 0; i < kContext; ++i) padded_[kEnd + i] = padded_[kEnd - 2 - i];

  // Magnitudes of a short-time Fourier transform.
  std::fill(b_.begin(), b_.end(), 0.0F);
  for (size_t frame = 0; frame < kFrames; ++frame) {
    float* const out = b_.data() + frame * 2 * kBins;
    for (size_t i = 0; i < kWindow; ++i) {
      AddScaled(model.basis_.data() + i * 2 * kBins, padded_[frame * kHop + i], out, 2 * kBins);
    }
    for (size_t bin = 0; bin < kBins; ++bin) {
      a_[frame * kBins + bin] =
          std::sqrt(out[bin] * out[bin] + out[kBins + bin] * out[kBins + bin]);
    }
  }

  size_t frames = kFrames;
  for (size_t layer = 0; layer < kEncoder.size(); ++layer) {
    const Shape& shape = kEncoder[layer];
    const SileroModel::Layer& weights = model.encoder_[layer];
    const size_t frames_out = (frames - 1) / shape.stride + 1;
    for (size_t frame = 0; frame < frames_out; ++frame) {
      float* const out = b_.data() + frame * shape.out;
      std::copy(weights.bias.begin(), weights.bias.end(), out);
      for (size_t tap = 0; tap < kTaps; ++tap) {
        const size_t at = frame * shape.stride + tap;  // with one frame of nothing before
        if (at < 1 || at > frames) continue;
        const float* const in = a_.data() + (at - 1) * shape.in;
        for (size_t i = 0; i < shape.in; ++i) {
          AddScaled(weights.weights.data() + (i * kTaps + tap) * shape.out, in[i], out, shape.out);
        }
      }
      for (size_t i = 0; i < shape.out; ++i) out[i] = std::max(out[i], 0.0F);
    }
    std::swap(a_, b_);
    frames = frames_out;
  }

  // The cell: input, forget, new, output gates.
  std::copy(model.gate_bias_.begin(), model.gate_bias_.end(), gates_.begin());
  for (size_t i = 0; i < kHidden; ++i) {
    AddScaled(model.input_gates_.data() + i * 4 * kHidden, a_[i], gates_.data(), 4 * kHidden);
    AddScaled(model.hidden_gates_.data() + i * 4 * kHidden, hidden_[i], gates_.data(), 4 * kHidden);
  }
  float sum = model.output_bias_;
  for (size_t i = 0; i < kHidden; ++i) {
    cell_[i] = Sigmoid(gates_[kHidden + i]) * cell_[i] +
               Sigmoid(gates_[i]) * std::tanh(gates_[2 * kHidden + i]);
    hidden_[i] = Sigmoid(gates_[3 * kHidden + i]) * std::tanh(cell_[i]);
    sum += model.output_[i] * std::max(hidden_[i], 0.0F);
  }
  return Sigmoid(sum);
}

namespace {

class SileroVad final : public Vad {
 public:
  SileroVad(std::shared_ptr<const SileroModel> model, const SileroVadOptions& options)
      : options_(options), pass_(std::move(model)) {}

  VadFrame Process(std::span<const int16_t> frame) override {
    for (const int16_t sample : frame) {
      chunk_[filled_++] = static_cast<float>(sample) / 32'768.0F;
      if (filled_ < chunk_.size()) continue;
      filled_ = 0;
      last_.probability = pass_.Run(chunk_.data());
      last_.speech =
          last_.probability >= (last_.speech ? options_.speech_until : options_.speech_from);
    }
    last_.level_dbov = LevelDbov(frame);
    return last_;
  }
  void Reset() override {
    pass_.Reset();
    filled_ = 0;
    last_ = {};
  }

 private:
  const SileroVadOptions options_;
  SileroPass pass_;
  std::array<float, SileroPass::kChunk> chunk_{};
  size_t filled_ = 0;
  VadFrame last_;
};

}  // namespace

std::unique_ptr<Vad> NewSileroVad(std::shared_ptr<const SileroModel> model,
                                  const SileroVadOptions& options) {
  return std::make_unique<SileroVad>(std::move(model), options);
}

}  // namespace parley::audio
