// Package packages tests the RPMs: their contents, that both ways of building them give the same
// packages, that the same sources give identical files, that the dnf repository is complete, and
// the effects of an installation into a directory.
//
// It must not depend on what the daemons do, and needs no systemd: internal/e2e/machine installs
// the packages on a machine with systemd.
package packages

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

const root = "../../.."

var work string // directory of this run for all built files

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := tools(); err != nil {
		fmt.Fprintln(os.Stderr, "packages: not run:", err)
		if require.Set() {
			return 1
		}
		return 0
	}
	var err error
	if work, err = os.MkdirTemp("", "packages-"); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		return 1
	}
	defer os.RemoveAll(work)
	return m.Run()
}

// tools returns an error if a tool is missing.
func tools() error {
	if os.Geteuid() != 0 {
		return errors.New("root is required: rpm --root uses chroot")
	}
	for _, tool := range []string{"rpm", "rpmbuild", "unshare", "createrepo_c"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w; internal/e2e/need.sh installs it", err)
		}
	}
	for _, tool := range []string{"packager", "cyclonedx-gomod"} {
		if _, err := os.Stat(filepath.Join(root, "bin", tool)); err != nil {
			return fmt.Errorf("%w; make bin/%s builds it", err, tool)
		}
	}
	return nil
}

// command runs a program and returns its output, including standard error.
func command(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// epoch is the release time of the tested versions.
var epoch = time.Unix(1_700_000_000, 0)

// checkout creates a tree without git, like an unpacked source archive: the files of this tree
// that git tracks, the modules, and the version.
func checkout(dir, version string) error {
	script := `set -e; mkdir -p "$1"; git ls-files -z | tar -c --null --files-from=- -f - | tar -x -C "$1" -f -
cd "$1" && GOWORK=off GOFLAGS=-mod=mod go mod vendor`
	cmd := exec.Command("sh", "-c", script, "checkout", dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("checkout: %w\n%s", err, out)
	}
	return release(dir, version)
}

// release sets the version of a tree.
func release(dir, version string) error {
	file := filepath.Join(dir, "VERSION")
	if err := os.WriteFile(file, []byte(version+"\n"), 0o644); err != nil {
		return err
	}
	return os.Chtimes(file, epoch, epoch)
}

// packager is the path of the program that builds packages.
var packager = filepath.Join(root, "bin/packager")

// buildRPMs builds the source archive of the tree and the binary RPMs for an architecture.
func buildRPMs(tree, out, arch string) error {
	if _, err := command(nil, filepath.Join(tree, "packaging/source.sh"), out, packager); err != nil {
		return err
	}
	_, err := command(nil, filepath.Join(tree, "packaging/rpm.sh"), out, packager, arch)
	return err
}

// pack builds the binary RPMs of the tree for this machine, and its source RPM.
func pack(tree, out string) error {
	if err := buildRPMs(tree, out, runtime.GOARCH); err != nil {
		return err
	}
	_, err := command(nil, filepath.Join(tree, "packaging/srpm.sh"), out)
	return err
}

// built is a set of packages.
type built struct{ tree, out string }

// first has the packages of v0.1.0.
var first = sync.OnceValues(func() (built, error) {
	b := built{filepath.Join(work, "tree"), filepath.Join(work, "first")}
	if err := checkout(b.tree, "v0.1.0"); err != nil {
		return b, err
	}
	return b, pack(b.tree, b.out)
})

// second has the packages of v0.2.0, whose configuration files have different defaults.
var second = sync.OnceValues(func() (built, error) {
	b, err := first()
	if err != nil {
		return b, err
	}
	two := built{filepath.Join(work, "tree2"), filepath.Join(work, "second")}
	if _, err := command(nil, "cp", "-a", b.tree, two.tree); err != nil {
		return two, err
	}
	for _, name := range []string{"clientmountd", "nnf-dm"} {
		file := filepath.Join(two.tree, "etc", name, "config.toml")
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, append(text, "# another default\n"...), 0o644)
		}
		if err != nil {
			return two, err
		}
	}
	if err := release(two.tree, "v0.2.0"); err != nil {
		return two, err
	}
	return two, pack(two.tree, two.out)
})

// must builds a set of packages, or returns it if it is already built.
func must(t *testing.T, set func() (built, error)) built {
	t.Helper()
	b, err := set()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rpmArch returns rpm's name of this architecture.
func rpmArch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// rpmOf returns the file of a package.
func (b built) rpmOf(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.out, name+"-[0-9]*."+rpmArch()+".rpm"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages of %s in %s: %q, %v", name, b.out, found, err)
	}
	return found[0]
}

var names = []string{"clientmountd", "nnf-dm", "nnf-deploy"}
