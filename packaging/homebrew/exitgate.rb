# A formula for Homebrew, which builds exitgate from a release. It was never run: the tests of this project run on Linux without
# Homebrew. For a release, set `url` and `sha256`, then run these two commands on a Mac:
#
#     brew install --build-from-source ./exitgate.rb
#     brew test exitgate && brew audit --new --formula exitgate
class Exitgate < Formula
  desc "SOCKS and HTTP proxy gateway with tested Tor exits"
  homepage "https://github.com/exitgate/exitgate"
  url "https://github.com/exitgate/exitgate/archive/refs/tags/v0.2.0.tar.gz"
  # 0.2.0 is not released yet, so its checksum is not known.
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]
  head "https://github.com/exitgate/exitgate.git", branch: "main"

  depends_on "rust" => :build
  depends_on "tor"

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"exitgate", "completions")
    (buildpath/"man").mkpath
    system bin/"exitgate", "man", buildpath/"man"
    man1.install Dir["man/*.1"]
    pkgshare.install "config/exitgate.toml", "config/examples"

    (buildpath/"service.toml").write <<~TOML
      # The configuration of `brew services start exitgate`. #{opt_pkgshare}/exitgate.toml lists all keys with their defaults.
      data_dir = "#{var}/lib/exitgate"

      [tor]
      binary = "#{Formula["tor"].opt_bin}/tor"
    TOML
    # Homebrew keeps a file in etc that was changed.
    (etc/"exitgate").install "service.toml" => "exitgate.toml"
  end

  def post_install
    (var/"lib/exitgate").mkpath
    chmod 0700, var/"lib/exitgate"
  end

  def caveats
    <<~EOS
      exitgate starts tor processes of its own: `brew services start tor` is not needed.
      The configuration of the service is #{etc}/exitgate/exitgate.toml. Check it with:
        exitgate check-config --config #{etc}/exitgate/exitgate.toml
      For a gateway with a key and a token, without the service:
        exitgate init --dir FOLDER
    EOS
  end

  service do
    run [opt_bin/"exitgate", "serve", "--config", etc/"exitgate/exitgate.toml"]
    keep_alive crashed: true
    working_dir var/"lib/exitgate"
    environment_variables PATH: std_service_path_env
    error_log_path var/"log/exitgate.log"
  end

  test do
    port = free_port
    assert_match version.to_s, shell_output("#{bin}/exitgate --version")
    (testpath/"exitgate.toml").write <<~TOML
      data_dir = "#{testpath}/data"
      [gateway]
      listen = "127.0.0.1:#{free_port}"
      [api]
      listen = "127.0.0.1:#{port}"
    TOML
    pid = spawn bin/"exitgate", "serve", "--config", testpath/"exitgate.toml"
    output = shell_output("curl --silent --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:#{port}/health")
    assert_match "alive", output
  ensure
    Process.kill "TERM", pid if pid
    Process.wait pid if pid
  end
end
