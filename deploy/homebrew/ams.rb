# A formula of Homebrew, for a tap of your own: put the address and the hash of a release's archive in.
#
#   brew install --build-from-source ./ams.rb
#
# It was not run: there is no macOS here. `ruby -c` reads it.
class Ams < Formula
  desc "Click-through-rate models that look at pictures"
  homepage "https://example.com/ams"
  url "https://example.com/ams-0.2.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", "--features", "full", *std_cargo_args(path: "crates/cli")
    generate_completions_from_executable(bin/"ams", "completions")
    system bin/"ams", "man", "--out", man1
  end

  test do
    system bin/"ams", "demo", "--size", "tiny"
    assert_path_exists testpath/"demo/models/shop/1/MANIFEST.json"
  end
end
