#include "rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>

#include <set>
#include <string>
#include <vector>

#include "rpc/reflection.grpc.pb.h"

namespace parley::rpc {
namespace {

namespace wire = ::grpc::reflection::v1alpha;
using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

const DescriptorPool& Known() { return *DescriptorPool::generated_pool(); }

void AddWithImports(const FileDescriptor* file, std::set<const FileDescriptor*>& added,
                    wire::FileDescriptorResponse& response) {
  if (!added.insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  proto.SerializeToString(response.add_file_descriptor_proto());
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddWithImports(file->dependency(i), added, response);
  }
}

void NotFound(wire::ServerReflectionResponse& response, std::string_view what) {
  response.mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
  response.mutable_error_response()->set_error_message(std::string(what) + " is not known here");
}

void TakeFile(const FileDescriptor* file, wire::ServerReflectionResponse& response) {
  if (file == nullptr) return NotFound(response, "what was asked for");
  std::set<const FileDescriptor*> added;
  AddWithImports(file, added, *response.mutable_file_descriptor_response());
}

void TakeExtension(const wire::ExtensionRequest& request,
                   wire::ServerReflectionResponse& response) {
  const Descriptor* type = Known().FindMessageTypeByName(request.containing_type());
  const FieldDescriptor* field =
      type == nullptr ? nullptr : Known().FindExtensionByNumber(type, request.extension_number());
  TakeFile(field == nullptr ? nullptr : field->file(), response);
}

void TakeExtensions(const std::string& name, wire::ServerReflectionResponse& response) {
  const Descriptor* type = Known().FindMessageTypeByName(name);
  if (type == nullptr) return NotFound(response, "the type");
  response.mutable_all_extension_numbers_response()->set_base_type_name(name);
  std::vector<const FieldDescriptor*> extensions;
  Known().FindAllExtensions(type, &extensions);
  for (const FieldDescriptor* one : extensions) {
    response.mutable_all_extension_numbers_response()->add_extension_number(one->number());
  }
}

}  // namespace

class Reflection::Service final : public wire::ServerReflection::CallbackService {
 public:
  grpc::ServerBidiReactor<wire::ServerReflectionRequest, wire::ServerReflectionResponse>*
  ServerReflectionInfo(grpc::CallbackServerContext*) override {
    return new Stream(*this);
  }
  // Lives as long as the server; complete once that has started.
  void SetNames(const std::vector<std::string>* names) { names_ = names; }

 private:
  class Stream final : public grpc::ServerBidiReactor<wire::ServerReflectionRequest,
                                                      wire::ServerReflectionResponse> {
   public:
    explicit Stream(const Service& service) : service_(service) { StartRead(&request_); }
    void OnReadDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::OK);
      response_.Clear();
      *response_.mutable_original_request() = request_;
      response_.set_valid_host(request_.host());
      service_.Answer(request_, response_);
      StartWrite(&response_);
    }
    void OnWriteDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::OK);
      StartRead(&request_);
    }
    void OnDone() override { delete this; }

   private:
    const Service& service_;
    wire::ServerReflectionRequest request_;
    wire::ServerReflectionResponse response_;
  };

  void Answer(const wire::ServerReflectionRequest& request,
              wire::ServerReflectionResponse& response) const {
    using Request = wire::ServerReflectionRequest;
    switch (request.message_request_case()) {
      case Request::kFileByFilename:
        return TakeFile(Known().FindFileByName(request.file_by_filename()), response);
      case Request::kFileContainingSymbol:
        return TakeFile(Known().FindFileContainingSymbol(request.file_containing_symbol()),
                        response);
      case Request::kFileContainingExtension:
        return TakeExtension(request.file_containing_extension(), response);
      case Request::kAllExtensionNumbersOfType:
        return TakeExtensions(request.all_extension_numbers_of_type(), response);
      case Request::kListServices:
        for (const std::string& name : *names_) {
          response.mutable_list_services_response()->add_service()->set_name(name);
        }
        response.mutable_list_services_response();
        return;
      default:
        response.mutable_error_response()->set_error_code(grpc::StatusCode::INVALID_ARGUMENT);
        response.mutable_error_response()->set_error_message("the request asks for nothing");
    }
  }

  const std::vector<std::string>* names_ = nullptr;
};

// The way to the names of what a server serves.
class Reflection::Names final : public grpc::ServerBuilderOption {
 public:
  explicit Names(Service& service) : service_(service) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->push_back(std::make_unique<Plugin>(service_));
  }

 private:
  class Plugin final : public grpc::ServerBuilderPlugin {
   public:
    explicit Plugin(Service& service) : service_(service) {}
    std::string name() override { return "parley.reflection"; }
    void InitServer(grpc::ServerInitializer*) override {}
    void Finish(grpc::ServerInitializer* initializer) override {
      service_.SetNames(initializer->GetServiceList());
    }
    void ChangeArguments(const std::string&, void*) override {}

   private:
    Service& service_;
  };
  Service& service_;
};

Reflection::Reflection() : service_(std::make_unique<Service>()) {}
Reflection::~Reflection() = default;

void Reflection::AddTo(grpc::ServerBuilder& builder) {
  builder.RegisterService(service_.get());
  builder.SetOption(std::make_unique<Names>(*service_));
}

}  // namespace parley::rpc
