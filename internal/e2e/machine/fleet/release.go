package fleet

import (
	"crypto/md5" // used by the older installer
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// Release is a version of the packages.
type Release struct {
	Version  string
	Packages []string          // files, including packages that are not for nodes
	Programs string            // directory with the same programs
	Sums     map[string]string // SHA-256 of each program
}

// programs of a release.
var programs = machine.Programs()

var releases struct {
	once sync.Once
	list []*Release
	err  error
}

// Releases returns an older and a newer release, built from this source tree.
func (f *Fleet) Releases() (older, newer *Release) {
	f.t.Helper()
	releases.once.Do(func() { releases.list, releases.err = makeReleases(f.t, filepath.Join(f.Fixture.Dir, "releases")) })
	if releases.err != nil {
		f.t.Fatal(releases.err)
	}
	return releases.list[0], releases.list[1]
}

func makeReleases(t testing.TB, dir string) (list []*Release, err error) {
	root := fixture.Root(t)
	packager := filepath.Join(root, "bin/packager")
	if _, err := os.Stat(packager); err != nil {
		return nil, fmt.Errorf("%w; make bin/packager builds it", err)
	}
	run := func(env, name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), env)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
		}
		return nil
	}
	tree := ""
	for _, version := range []string{"0.1.0", "0.2.0"} {
		out := filepath.Join(dir, version)
		of := filepath.Join(out, "source/compute-daemons-"+version)
		if tree == "" {
			err = run("VERSION=v"+version, "packaging/source.sh", out, packager)
		} else { // the same sources with a different version
			if err = os.MkdirAll(filepath.Dir(of), 0o755); err == nil {
				err = os.Rename(tree, of)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(of, "VERSION"), []byte("v"+version+"\n"), 0o644)
			}
		}
		if err == nil {
			err = run("GOFLAGS=", "packaging/rpm.sh", out, packager, runtime.GOARCH)
		}
		if err != nil {
			return nil, err
		}
		r := &Release{Version: "v" + version, Programs: filepath.Join(out, "source", runtime.GOARCH, "root/usr/bin"), Sums: map[string]string{}}
		if r.Packages, err = filepath.Glob(filepath.Join(out, "*.rpm")); err != nil || len(r.Packages) < len(daemons) {
			return nil, fmt.Errorf("the packages of %s are %q, %v", version, r.Packages, err)
		}
		for _, p := range programs {
			data, err := os.ReadFile(filepath.Join(r.Programs, p))
			if err != nil {
				return nil, err
			}
			sum := sha256.Sum256(data)
			r.Sums[p] = hex.EncodeToString(sum[:])
		}
		list, tree = append(list, r), of
	}
	return list, nil
}

// olderInstaller installs one daemon like the installers of the older generation: it copies
// each file with ssh and scp, and starts the daemon with systemctl, without a restart.
type olderInstaller struct {
	name, bin   string // the credentials are in /etc/<name>
	credentials string // directory with service.token and service.cert
	binary      string // path of the program on this machine
	args        string
	env         []string
}

// install runs the steps of that installer on one node, and returns the changed files. An error
// ends the test, except for errors that the installer ignores.
func (o olderInstaller) install(f *Fleet, n *Node) (changed []string) {
	f.t.Helper()
	must := func(command string) string {
		f.t.Helper()
		r := f.SSH(n, command)
		if r.Code != 0 {
			f.t.Fatalf("%s on %s: %+v", command, n.Name, r)
		}
		return r.Stdout
	}
	etc := "/etc/" + o.name
	must("mkdir -p " + etc)
	for _, file := range []string{"service.token", "service.cert"} {
		data, err := os.ReadFile(filepath.Join(o.credentials, file))
		if err != nil {
			f.t.Fatal(err)
		}
		if o.copy(f, n, f.write(file, 0o644, string(data)), etc+"/"+file) { // readable by all users, as with that installer
			changed = append(changed, file)
		}
	}
	program := "/usr/bin/" + o.bin
	if differs(f, n, o.binary, program) {
		f.SSH(n, "systemctl stop "+o.bin)
		f.SSH(n, program+" remove")
		o.copy(f, n, o.binary, program)
		must(program + " -h")
		f.SSH(n, program+" install")
		changed = append(changed, o.bin)
	}
	dropIn := "/etc/systemd/system/" + o.bin + ".service.d"
	must("mkdir -p " + dropIn)
	if o.copy(f, n, f.write("override.conf", 0o644, o.override(f)), dropIn+"/override.conf") {
		changed = append(changed, "override.conf")
	}
	if len(changed) > 0 {
		must("systemctl daemon-reload")
		must("systemctl start " + o.bin)
	}
	return changed
}

// override returns the drop-in with the arguments of the daemon.
func (o olderInstaller) override(f *Fleet) string {
	host, port, _ := strings.Cut(f.Fixture.Cluster.Address(), ":")
	lines := []string{
		"/usr/bin/" + o.bin, "--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=/etc/" + o.name + "/service.token", "--service-cert-file=/etc/" + o.name + "/service.cert",
	}
	if o.args != "" {
		lines = append(lines, o.args)
	}
	text := "[Service]\nExecStart=\nExecStart=" + strings.Join(lines, " \\\n  ") + "\n"
	for _, e := range o.env {
		text += "Environment=" + e + "\n"
	}
	return text
}

// copy copies a file to a node if it differs, and reports whether it did.
func (o olderInstaller) copy(f *Fleet, n *Node, from, to string) bool {
	f.t.Helper()
	if !differs(f, n, from, to) {
		return false
	}
	if r := f.Run(nil, "scp", "-F", f.Config(), "-q", "-O", "-C", from, n.Name+":"+to); r.Code != 0 {
		f.t.Fatalf("scp %s to %s: %+v", from, n.Name, r)
	}
	return true
}

func differs(f *Fleet, n *Node, local, remote string) bool {
	f.t.Helper()
	data, err := os.ReadFile(local)
	if err != nil {
		f.t.Fatal(err)
	}
	sum := md5.Sum(data)
	there, _, _ := strings.Cut(f.SSH(n, "md5sum "+remote).Stdout, " ")
	return there != hex.EncodeToString(sum[:])
}

// olders returns both daemons with the settings of that installer.
func olders(f *Fleet, bin string) []olderInstaller {
	env := []string{"GOGC=off", "GOMEMLIMIT=20MiB", "GOMAXPROCS=5", "HTTP2_PING_TIMEOUT_SECONDS=60"}
	in := func(daemon string) string { return filepath.Join(f.Fixture.Cluster.Dir, daemon) }
	return []olderInstaller{
		{name: "nnf-data-movement", bin: "nnf-dm", credentials: in("nnf-dm"), binary: filepath.Join(bin, "nnf-dm"), args: "--kubernetes-qps 50 --kubernetes-burst 100", env: env},
		{name: "client-mount", bin: "clientmountd", credentials: in("clientmountd"), binary: filepath.Join(bin, "clientmountd"), env: env},
	}
}

// earlier creates the files of a daemon of the older generation and its installer on a node: a
// running program, its unit, and the drop-in with its options.
func (n *Node) earlier() {
	n.Put("/usr/bin/clientmountd", 0o755, []byte("#!/bin/sh\nexec sleep infinity\n"))
	n.Put("/etc/systemd/system/clientmountd.service", 0o644, machine.OlderUnit("clientmountd", "Data Workflow Service (DWS) Client Mount Service"))
	n.Put("/etc/systemd/system/clientmountd.service.d/override.conf", 0o644, []byte(`[Service]
ExecStart=
ExecStart=/usr/bin/clientmountd \
  --kubernetes-service-host=10.0.0.5 \
  --kubernetes-service-port=6443 \
  --service-token-file=/etc/client-mount/service.token \
  --service-cert-file=/etc/client-mount/service.cert
Environment=GOGC=off
Environment=GOMEMLIMIT=20MiB
`))
	n.Put("/etc/client-mount/service.token", 0o644, []byte("old"))
	n.Do("systemctl daemon-reload && systemctl -q enable --now clientmountd")
}
