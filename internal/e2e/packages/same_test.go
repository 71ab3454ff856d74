package packages

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The same sources give the same bytes, in whatever folder and at whatever time,
// and an archive makes itself again.
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
		t.Fatalf("made were %q, %v; want three packages, the source package and the archive", files, err)
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
			t.Errorf("%s has other bytes the second time", filepath.Base(file))
		}
	}
}

// What rpmbuild makes of the source package, without a network, is what nfpm has
// made: the same files, needs and scriptlets.
func TestSourcePackageMakesTheSame(t *testing.T) {
	b := must(t, first)
	top := t.TempDir()
	rebuilt := built{out: filepath.Join(top, "RPMS", rpmArch())}
	srpm := filepath.Join(b.out, "compute-daemons-0.1.0-1.src.rpm")
	// --nodeps: the machine's Go need not be from a package.
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
