package packages

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// The same sources give identical files, in any directory and at any time, and an unpacked archive
// gives the same archive.
func TestReproducible(t *testing.T) {
	b := must(t, first)
	again := built{out: t.TempDir()}
	inner, err := filepath.Glob(filepath.Join(b.out, "source/compute-daemons-*"))
	if err != nil || len(inner) != 1 {
		t.Fatalf("%q, %v", inner, err)
	}
	again.tree = filepath.Join(t.TempDir(), "a", "rather", "long", "path")
	unpack := `mkdir -p "$2" && tar -x -z -f "$1" -C "$2" --strip-components=1`
	if _, err := command(nil, "sh", "-c", unpack, "unpack", filepath.Join(b.out, "compute-daemons-0.1.0.tar.gz"), again.tree); err != nil {
		t.Fatal(err)
	}
	if err := pack(again.tree, again.out); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(b.out, "*.*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("the built files are %q, %v; want three packages, the source package and the archive", files, err)
	}
	for _, file := range files {
		one, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(again.out, filepath.Base(file)))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(one, two) {
			t.Errorf("%s differs in the second build", filepath.Base(file))
		}
	}
}

// From the source package, without network, rpmbuild builds the same packages as nfpm: the same
// files, dependencies and scriptlets.
func TestSourcePackage(t *testing.T) {
	b := must(t, first)
	top := t.TempDir()
	rebuilt := built{out: filepath.Join(top, "RPMS", rpmArch())}
	srpm := filepath.Join(b.out, "compute-daemons-0.1.0-1.src.rpm")
	// --nodeps: Go may not be installed from a package.
	if out, err := command(nil, "unshare", "-n", "rpmbuild", "--rebuild", "--nodeps", "--define", "_topdir "+top, srpm); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range names {
		one, two := read(t, b.rpmOf(t, name)), read(t, rebuilt.rpmOf(t, name))
		if lines := difference(two.files, one.files) + difference(two.relations, one.relations); lines != "" {
			t.Errorf("%s by rpmbuild: %s", name, lines)
		}
		if one.scriptlets != two.scriptlets || one.about != two.about {
			t.Errorf("%s by nfpm\n%s%s\nand by rpmbuild\n%s%s", name, one.about, one.scriptlets, two.about, two.scriptlets)
		}
	}
}

// The packages for the other architecture have the same files, and programs for that architecture.
func TestOtherArchitecture(t *testing.T) {
	b := must(t, first)
	other, arch, machine := "arm64", "aarch64", elf.EM_AARCH64
	if runtime.GOARCH == "arm64" {
		other, arch, machine = "amd64", "x86_64", elf.EM_X86_64
	}
	out := t.TempDir()
	stale := filepath.Join(out, "nnf-deploy-0.0.9-1."+arch+".rpm")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := buildRPMs(b.tree, out, other); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a package of another version was not removed: %v", err)
	}
	for name, programs := range map[string][]string{"clientmountd": {"clientmountd"}, "nnf-dm": {"nnf-dm", "nnf-dmctl"}, "nnf-deploy": {"nnf-deploy"}} {
		pkg := filepath.Join(out, name+"-0.1.0-1."+arch+".rpm")
		if got := query(t, pkg, "%{ARCH}"); got != arch {
			t.Errorf("%s is for %s", name, got)
		}
		if lines := difference(paths(read(t, pkg).files), paths(read(t, b.rpmOf(t, name)).files)); lines != "" {
			t.Errorf("%s for %s: %s", name, arch, lines)
		}
		tree := t.TempDir()
		if _, err := command(nil, "sh", "-c", `rpm2cpio "$1" | (cd "$2" && cpio --quiet -i -d --no-absolute-filenames)`, "unpack", pkg, tree); err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			f, err := elf.Open(filepath.Join(tree, "usr/bin", p))
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Machine != machine {
				t.Errorf("%s is a program for %s", p, f.Machine)
			}
			f.Close()
		}
	}
}

// rpmlint finds no error in the binary and source packages. Its warnings are logged.
func TestLint(t *testing.T) {
	require.Tool(t, "rpmlint")
	b := must(t, first)
	args := []string{"--config", filepath.Join(root, "packaging/rpmlint.toml"), filepath.Join(b.out, "compute-daemons-0.1.0-1.src.rpm")}
	out, err := command([]string{"PATH=" + harmlessCpio(t) + ":" + os.Getenv("PATH")}, "rpmlint", append(args, b.all(t)...)...)
	if err != nil {
		t.Error(err)
	}
	summary := regexp.MustCompile(`(\d+) packages and \d+ specfiles checked; (\d+) errors, `).FindStringSubmatch(out)
	if summary == nil || summary[1] != "4" || summary[2] != "0" {
		t.Errorf("rpmlint prints\n%s", out)
	}
	t.Log(out)
}

// harmlessCpio returns a directory for PATH with a cpio that does not use absolute names. rpmlint
// unpacks packages with cpio; packages that nfpm builds have absolute names, so rpmlint would
// overwrite the files of this machine.
func harmlessCpio(t *testing.T) string {
	t.Helper()
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nexec " + cpio + " --no-absolute-filenames \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "cpio"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
