#pragma once
// Certificates for tests, made by the openssl program.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace parley::testing {

// A folder with certificate authorities and what they signed.
class Certificates {
 public:
  Certificates() {
    std::string pattern = ::testing::TempDir() + "certificates-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~Certificates() { std::filesystem::remove_all(folder_); }
  std::string operator[](const std::string& name) const { return folder_ / name; }

  void MakeAuthority(const std::string& name) {
    Run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=" +
        name + " -keyout " + name + ".key -out " + name + ".crt");
  }
  // NAME.crt and NAME.key, signed by `authority` for the host `dns`, for a day.
  void Make(const std::string& name, const std::string& authority, const std::string& dns) {
    Run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=" + name +
        " -addext subjectAltName=DNS:" + dns + " -keyout " + name + ".key -out " + name + ".csr");
    Run("openssl x509 -req -in " + name + ".csr -CA " + authority + ".crt -CAkey " + authority +
        ".key -CAcreateserial -copy_extensions copyall -days 1 -out " + name + ".crt");
  }
  // As a mounted secret changes: all files behind one link, which is turned to another folder. They
  // are `certificate`.crt and .key as tls.crt and tls.key, and `trusted` as ca.crt.
  void Mount(const std::string& certificate, const std::vector<std::string>& trusted) {
    const std::string version = "v" + std::to_string(++versions_);
    std::filesystem::create_directory(folder_ / version);
    std::filesystem::copy_file(folder_ / (certificate + ".crt"), folder_ / version / "tls.crt");
    std::filesystem::copy_file(folder_ / (certificate + ".key"), folder_ / version / "tls.key");
    std::ofstream authorities(folder_ / version / "ca.crt");
    for (const std::string& name : trusted) authorities << Text(name + ".crt");
    authorities.close();
    std::filesystem::create_symlink(version, folder_ / "next");
    std::filesystem::rename(folder_ / "next", folder_ / "mounted");
  }
  std::string Text(const std::string& name) const {
    std::ifstream file(folder_ / name);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  void Run(const std::string& command) {
    const std::string all = "cd " + folder_.string() + " && " + command + " >log 2>&1";
    ASSERT_EQ(std::system(all.c_str()), 0) << Text("log");
  }
  std::filesystem::path folder_;
  int versions_ = 0;
};

}  // namespace parley::testing
