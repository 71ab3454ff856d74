package budget

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/compute-daemons/compute-daemons"
	daemon = "clientmountd"
)

var (
	building sync.Mutex
	folder   string // of the binaries
)

// built is a program as make builds it, in a folder of its own.
func built(name string) (string, error) {
	building.Lock()
	defer building.Unlock()
	if folder == "" {
		dir, err := os.MkdirTemp("", "budget-")
		if err != nil {
			return "", err
		}
		folder = dir
	}
	path := filepath.Join(folder, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// What would make run? So the flags can never differ from the release's.
	plan, err := command("make", "-s", "-n", "-C", root, "bin/"+name)
	if err != nil {
		return "", err
	}
	line := ""
	for l := range strings.Lines(plan) {
		if strings.Contains(l, " build ") && strings.HasSuffix(strings.TrimSpace(l), "./cmd/"+name) {
			line = strings.TrimSpace(l)
		}
	}
	_, err = command("sh", "-c", "cd "+root+" && "+strings.Replace(line, "-o bin/"+name, "-o "+path, 1))
	return path, err
}

const root = "../../.."

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

type failure struct {
	error
	stderr string
}

func (f *failure) Error() string { return f.error.Error() + "\n" + f.stderr }

func command(name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	// A make above this one must not get its flags and targets into ours.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "MAKE") || strings.HasPrefix(kv, "MFLAGS=") })
	out, err := cmd.Output()
	if err != nil {
		err = &failure{err, stderr.String()}
	}
	return string(out), err
}

// each runs a test for every program.
func each(t *testing.T, f func(t *testing.T, p program, path string)) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			path, err := built(p.name)
			if err != nil {
				t.Fatal(err)
			}
			f(t, p, path)
		})
	}
}

func TestSize(t *testing.T) {
	each(t, func(t *testing.T, p program, path string) {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %.2f MB of %.0f", p.name, float64(st.Size())/1e6, float64(p.maxSize)/1e6)
		if st.Size() > p.maxSize {
			t.Errorf("%d bytes, at most %d are promised", st.Size(), p.maxSize)
		}
	})
}

// One file that runs on every distribution, with nothing in it for debuggers.
func TestStaticAndStripped(t *testing.T) {
	each(t, func(t *testing.T, _ program, path string) {
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("it is linked dynamically: %v", p.Type)
			}
		}
		for _, s := range f.Sections {
			if s.Name == ".symtab" || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
				t.Errorf("it is not stripped: %s", s.Name)
			}
		}
	})
}

func TestModules(t *testing.T) {
	each(t, func(t *testing.T, p program, path string) {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Main.Path != module || len(info.Deps) == 0 {
			t.Fatalf("the binary does not know its modules: %+v", info)
		}
		linked := map[string]bool{}
		for _, d := range info.Deps {
			linked[d.Path] = true
			if p.modules[d.Path] == "" {
				t.Errorf("%s is linked and not on the list; is there a way without? If not, add it to links.go with the reason", d.Path)
			}
			if d.Replace != nil {
				t.Errorf("%s is replaced by %s", d.Path, d.Replace.Path)
			}
		}
		for _, m := range slices.Sorted(maps.Keys(p.modules)) {
			if !linked[m] {
				t.Errorf("%s is on the list and not linked any more; take it off", m)
			}
		}
	})
}

func TestForbiddenPackages(t *testing.T) {
	out, err := command("go", "list", "-tags", "grpcnotrace", "-deps", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, module+"/cmd/"+daemon)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "k8s.io/client-go/rest ") {
		t.Fatal("the list of packages has not even what is surely linked")
	}
	for l := range strings.Lines(out) {
		from, to, _ := strings.Cut(strings.TrimSpace(l), " ")
		for name, why := range forbidden {
			if to == name || strings.HasPrefix(to, name+"/") {
				t.Errorf("%s imports %s: %s", from, to, why)
			}
		}
	}
}

// A single call of a method whose name the linker cannot know makes it keep
// every exported method of every type: megabytes.
func TestNoMethodByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", "grpcnotrace", "-ldflags=-dumpdep", "-o", path, module+"/cmd/"+daemon)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("<UsedInIface>")) {
		t.Fatal("the linker does not say what it keeps and why: this test has to learn its new words")
	}
	for l := range bytes.Lines(out) {
		if from, _, ok := bytes.Cut(l, []byte(" -> ")); ok && bytes.Contains(from, []byte("<ReflectMethod>")) {
			t.Errorf("%s calls methods by name", from)
			break
		}
	}
}
