package deploy

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

//go:embed bin
var stubs embed.FS

// The releases. c never becomes ready.
var releases = []string{"a", "b", "c"}

// own is the version of the credentials that belong to accounts of one node.
const own = "own"

// secretMark is in all secrets, and in nothing else.
const secretMark = "SECRET-"

// goods is what the administrator installs. It is the same for all worlds of a process.
type goods struct {
	dir  string
	sums map[string]string // releases of programs, by checksum of the file
}

// makeGoods builds the programs, packages and input files.
func makeGoods(dir, repository string) (*goods, error) {
	g := &goods{dir: dir, sums: map[string]string{}}
	program := filepath.Join(dir, "daemon")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", program, "./daemon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	for _, r := range releases {
		data := fmt.Appendf(slices.Clone(text), "\nrelease %s\n", r)
		g.sums[sum(data)] = r
		for _, d := range product.Daemons {
			for _, name := range d.Programs() {
				if err := g.write("bin-"+r+"/"+name, string(data), 0o755); err != nil {
					return nil, err
				}
			}
			if err := g.build(r, d, repository); err != nil {
				return nil, err
			}
		}
		if err := g.write("daemons-"+r+".yaml", daemonsOf(r), 0o600); err != nil {
			return nil, err
		}
		if err := g.credentials(r, r, func(d product.Daemon) product.Account { return d.Account }); err != nil {
			return nil, err
		}
	}
	if err := g.write("daemons-own.yaml", daemonsOf(own), 0o600); err != nil {
		return nil, err
	}
	for _, node := range nodeNames {
		if err := g.credentials(own+"-"+node, own, func(d product.Daemon) product.Account { return d.NodeAccount(node) }); err != nil {
			return nil, err
		}
	}
	return g, os.RemoveAll(filepath.Join(dir, "rpmbuild"))
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func (g *goods) write(name, text string, mode fs.FileMode) error {
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if mode&0o100 != 0 {
		return executable.Write(path, []byte(text))
	}
	return os.WriteFile(path, []byte(text), mode)
}

// daemonsOf returns the daemons.yaml of a release: a has a secret in the environment, b has arguments.
func daemonsOf(release string) string {
	var b strings.Builder
	for _, d := range product.Daemons {
		fmt.Fprintf(&b, "- name: %s\n  bin: %[1]s\n  serviceAccount: {name: %s, namespace: %s}\n", d.Name, d.Account.Name, d.Account.Namespace)
		switch release {
		case "a":
			fmt.Fprintf(&b, "  extraArgs: --log-level=release-a\n  env: [{name: HTTPS_PROXY, value: 'http://%sa-proxy@x'}]\n", secretMark)
		case "b":
			b.WriteString("  extraArgs: --log-level=release-b\n")
		}
	}
	return b.String()
}

// credentials writes a directory with credentials: tokens whose secret part has the version.
func (g *goods) credentials(dir, version string, account func(product.Daemon) product.Account) error {
	for _, d := range product.Daemons {
		claims, err := json.Marshal(map[string]any{"sub": account(d).User(), "iat": time.Now().Unix(), "exp": time.Now().Add(1000 * time.Hour).Unix()})
		if err != nil {
			return err
		}
		encoded := base64.RawURLEncoding.EncodeToString
		token := encoded([]byte(`{"alg":"RS256"}`)) + "." + encoded(claims) + "." + secretMark + version + "-" + d.Name
		err = errors.Join(g.write("credentials-"+dir+"/"+d.Name+"/"+product.TokenFile, token, 0o600),
			g.write("credentials-"+dir+"/"+d.Name+"/"+product.CertFile, "certificate "+version+" of "+d.Name+"\n", 0o600))
		if err != nil {
			return err
		}
	}
	return nil
}

// rpm returns the path of a package.
func (g *goods) rpm(release, daemon string) string {
	return filepath.Join(g.dir, "rpm", daemon+"-"+release+"-1.x86_64.rpm")
}

// build builds the package of a daemon, with the kinds of files of the real one.
func (g *goods) build(release string, d product.Daemon, repository string) error {
	top := filepath.Join(g.dir, "rpmbuild")
	root := filepath.Join(top, "root")
	if err := os.RemoveAll(top); err != nil {
		return err
	}
	files, group := "", strings.TrimPrefix(d.Owner, "root:")
	add := func(path, attr, text string, mode fs.FileMode) error {
		files += fmt.Sprintf("%s /%s\n", attr, path)
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		return os.WriteFile(full, []byte(text), mode)
	}
	for _, name := range d.Programs() {
		data, err := os.ReadFile(filepath.Join(g.dir, "bin-"+release, name))
		if err == nil {
			err = add("usr/bin/"+name, "", string(data), 0o755)
		}
		if err != nil {
			return err
		}
	}
	list := d.Units()
	if d.Timer() != "" {
		list = append(list, d.Timer())
	}
	for _, unit := range list {
		text := "# release " + release + "\n[Service]\n"
		if unit == d.Timer() {
			text = "# release " + release + "\n" + units.NnfdmTimer
		}
		if err := add("usr/lib/systemd/system/"+unit, "", text, 0o644); err != nil {
			return err
		}
	}
	config, err := os.ReadFile(filepath.Join(repository, "etc", d.Name, "config.toml"))
	if err != nil {
		return err
	}
	if err := add("etc/"+d.Name+"/config.toml", "%config(noreplace) %attr(0644,root,"+group+")", string(config)+"# release "+release+"\n", 0o644); err != nil {
		return err
	}
	files += fmt.Sprintf("%%dir %%attr(%s,root,%s) /etc/%s\n%%dir %%attr(%[1]s,root,%[2]s) /etc/%[3]s/config.d\n%%dir %%attr(0700,%[4]s,%[4]s) /var/lib/%[3]s\n", d.DirectoryMode, group, d.Name, d.User)
	for _, dir := range []string{"etc/" + d.Name + "/config.d", "var/lib/" + d.Name} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	spec := "Name: " + d.Name + "\nVersion: " + release + "\nRelease: 1\nSummary: s\nLicense: l\nBuildArch: x86_64\n%description\nd\n" +
		"%install\ncp -a " + root + "/. %{buildroot}\n%files\n" + files
	if err := os.WriteFile(filepath.Join(top, "x.spec"), []byte(spec), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("rpmbuild", "-bb", "--quiet", "--target", "x86_64", "--define", "_topdir "+top, "--define", "_rpmdir "+filepath.Join(g.dir, "rpm"), "--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
		"--define", "debug_package %{nil}", "--define", "_build_id_links none", "--define", "__os_install_post %{nil}", "--define", "_binary_payload w1.gzdio", "--define", "__find_provides %{nil}", "--define", "__find_requires %{nil}", filepath.Join(top, "x.spec"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// tools writes the fake commands of the nodes: those of the package fakenode, without those for nodes
// that have no owners and no disks of their own, and with the real rpm.
func tools(dir, repository string) error {
	for _, name := range []string{"chown", "stat", "id", "df", "rpm"} {
		if err := os.Remove(filepath.Join(dir, ".bin", name)); err != nil {
			return err
		}
	}
	rpm, err := stubs.ReadFile("bin/rpm")
	if err != nil {
		return err
	}
	text := strings.Replace(string(rpm), "\n", "\nSCRIPTLETS='"+filepath.Join(repository, "packaging/scriptlets")+"' installed='' upgraded=''\n", 1)
	// The scriptlets of the packages must not change this machine.
	for _, name := range []string{"systemd-tmpfiles", "systemd-sysusers"} {
		if err := executable.Write(filepath.Join(dir, ".bin", name), []byte("#!/bin/sh\n")); err != nil {
			return err
		}
	}
	return executable.Write(filepath.Join(dir, ".bin", "rpm"), []byte(text))
}

// status is what a fake daemon answers to "status -o json".
func status(tb lab.TB, d product.Daemon) string {
	tb.Helper()
	s := systemd.Status{Version: systemd.StatusVersion, API: systemd.APIAnswers, Renewal: &systemd.RenewalStatus{Enabled: true, Directory: d.RenewalDirectory()}}
	if d.Mounts {
		s.Mounts = new(systemd.MountStatus)
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		tb.Fatal(err)
	}
	return string(data) + "\n"
}
