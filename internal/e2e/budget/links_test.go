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

// built builds each program once, with the command of the Makefile.
var built = map[string]func() (string, error){}

func build(daemon string) (string, error) {
	path := filepath.Join(programs, daemon)
	// Get the command from make, so that the flags are those of the release.
	plan, err := command("make", "-s", "-n", "-C", root, "bin/"+daemon)
	if err != nil {
		return "", err
	}
	line := ""
	for l := range strings.Lines(plan) {
		if strings.Contains(l, " build ") && strings.Contains(l, "./cmd/"+daemon) {
			line = strings.TrimSpace(l)
		}
	}
	_, err = command("sh", "-c", "cd "+root+" && "+strings.Replace(line, "-o bin/"+daemon, "-o "+path, 1))
	return path, err
}

const root = "../../.."

var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "budget-"); err != nil {
		panic(err)
	}
	for daemon := range budgets {
		built[daemon] = sync.OnceValues(func() (string, error) { return build(daemon) })
	}
	code := m.Run()
	os.RemoveAll(programs)
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
	// Do not pass the flags and targets of a calling make.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "MAKE") || strings.HasPrefix(kv, "MFLAGS=") })
	out, err := cmd.Output()
	if err != nil {
		err = &failure{err, stderr.String()}
	}
	return string(out), err
}

// each runs a subtest for every program.
func each(t *testing.T, f func(t *testing.T, daemon string, b budget)) {
	for _, daemon := range slices.Sorted(maps.Keys(budgets)) {
		t.Run(daemon, func(t *testing.T) { f(t, daemon, budgets[daemon]) })
	}
}

func binary(t *testing.T, daemon string) string {
	t.Helper()
	path, err := built[daemon]()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSize(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		st, err := os.Stat(binary(t, daemon))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %.2f MB of %.0f", daemon, float64(st.Size())/1e6, float64(b.maxSize)/1e6)
		if st.Size() > b.maxSize {
			t.Errorf("%d bytes, want at most %d", st.Size(), b.maxSize)
		}
	})
}

// The programs are static, so that they run on every distribution, and stripped.
func TestStaticAndStripped(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		f, err := elf.Open(binary(t, daemon))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("linked dynamically: %v", p.Type)
			}
		}
		for _, s := range f.Sections {
			if s.Name == ".symtab" || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
				t.Errorf("not stripped: %s", s.Name)
			}
		}
	})
}

// all adds the list of all daemons to that of the program, unless it is a tool.
func (b budget) all(ofDaemons, own map[string]string) map[string]string {
	out := maps.Clone(own)
	if !b.tool {
		if out == nil {
			out = map[string]string{}
		}
		maps.Copy(out, ofDaemons)
	}
	return out
}

func TestModules(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		info, err := buildinfo.ReadFile(binary(t, daemon))
		if err != nil {
			t.Fatal(err)
		}
		if info.Main.Path != module || len(info.Deps) == 0 {
			t.Fatalf("the binary has no list of modules: %+v", info)
		}
		may := b.all(modules, b.modules)
		linked := map[string]bool{}
		for _, d := range info.Deps {
			linked[d.Path] = true
			if may[d.Path] == "" {
				t.Errorf("%s is linked but not permitted: avoid it, or add it to links.go with the reason", d.Path)
			}
			if d.Replace != nil {
				t.Errorf("%s is replaced by %s", d.Path, d.Replace.Path)
			}
		}
		for _, m := range slices.Sorted(maps.Keys(may)) {
			if !linked[m] {
				t.Errorf("%s is permitted but not linked: remove it from links.go", m)
			}
		}
	})
}

func TestForbiddenPackages(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		out, err := command("go", "list", "-tags", "grpcnotrace", "-deps", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, module+"/cmd/"+daemon)
		if err != nil {
			t.Fatal(err)
		}
		certain := "k8s.io/client-go/rest "
		if _, all := b.modules["google.golang.org/grpc"]; b.tool && all {
			certain = "google.golang.org/grpc "
		}
		if !strings.Contains(out, certain) {
			t.Fatal("the list of packages is incomplete")
		}
		never := b.all(forbidden, b.forbidden)
		for l := range strings.Lines(out) {
			from, to, _ := strings.Cut(strings.TrimSpace(l), " ")
			for name, why := range never {
				if (to == name || strings.HasPrefix(to, name+"/")) && b.except[from+" "+to] == "" {
					t.Errorf("%s imports %s: %s", from, to, why)
				}
			}
		}
	})
}

// A single method call by a name that is not constant makes the linker keep all exported
// methods of all types: megabytes.
func TestNoMethodByName(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		if b.tool {
			return // short-lived, so its size in memory matters less
		}
		path := filepath.Join(t.TempDir(), "x")
		// go build caches the output of the linker and prints it again at the next build of
		// the same main package, even with other -ldflags: megabytes. -e has no effect other
		// than another cache key.
		main := module + "/cmd/" + daemon
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", "grpcnotrace", "-ldflags=-dumpdep", "-gcflags="+main+"=-e", "-o", path, main)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !bytes.Contains(out, []byte("<UsedInIface>")) {
			t.Fatal("the output of the linker has changed: adapt this test")
		}
		// With memory profiles the runtime samples allocations.
		if bytes.Contains(out, []byte("-> runtime/pprof.writeHeap")) || bytes.Contains(out, []byte("-> runtime.MemProfile\n")) {
			t.Error("memory profiles are linked")
		}
		for l := range bytes.Lines(out) {
			if from, _, ok := bytes.Cut(l, []byte(" -> ")); ok && bytes.Contains(from, []byte("<ReflectMethod>")) {
				t.Errorf("%s calls methods by name", from)
				break
			}
		}
	})
}
