package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Release is a version of the packages.
type Release struct {
	Version  string
	Packages []string          // files, also of what nodes do not get
	Programs string            // folder with the same programs
	Sums     map[string]string // SHA-256 of each program
}

// programs of a release.
var programs = machine.Programs()

var releases struct {
	once sync.Once
	list []*Release
	err  error
}

// Releases are an older and a newer one, made of this tree.
func (f *Fleet) Releases() (older, newer *Release) {
	f.t.Helper()
	releases.once.Do(func() { releases.list, releases.err = makeReleases(f.t, filepath.Join(f.World.Dir, "releases")) })
	if releases.err != nil {
		f.t.Fatal(releases.err)
	}
	return releases.list[0], releases.list[1]
}

func makeReleases(t testing.TB, dir string) (list []*Release, err error) {
	root := world.Root(t)
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
		} else { // the same sources again, of another version
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
