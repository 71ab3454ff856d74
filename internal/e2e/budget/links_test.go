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

// built makes each program as make does, once, in a directory of its own.
var built = map[string]func() (string, error){}

func build(daemon string) (string, error) {
	path := filepath.Join(programs, daemon)
	// What would make run? So the flags can never differ from the release's.
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
	// A make above this one must not get its flags and targets into ours.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "MAKE") || strings.HasPrefix(kv, "MFLAGS=") })
	out, err := cmd.Output()
	if err != nil {
		err = &failure{err, stderr.String()}
	}
	return string(out), err
}

// each runs a test for every program.
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
			t.Errorf("%d bytes, at most %d are promised", st.Size(), b.maxSize)
		}
	})
}

// One file that runs on every distribution, with nothing in it for debuggers.
func TestStaticAndStripped(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		f, err := elf.Open(binary(t, daemon))
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

// all adds what is promised of daemons.
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
			t.Fatalf("the binary does not know its modules: %+v", info)
		}
		may := b.all(modules, b.modules)
		linked := map[string]bool{}
		for _, d := range info.Deps {
			linked[d.Path] = true
			if may[d.Path] == "" {
				t.Errorf("%s is linked and not on the list; is there a way without? If not, add it to links.go with the reason", d.Path)
			}
			if d.Replace != nil {
				t.Errorf("%s is replaced by %s", d.Path, d.Replace.Path)
			}
		}
		for _, m := range slices.Sorted(maps.Keys(may)) {
			if !linked[m] {
				t.Errorf("%s is on the list and not linked any more; take it off", m)
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
		surely := "k8s.io/client-go/rest "
		if _, all := b.modules["google.golang.org/grpc"]; b.tool && all {
			surely = "google.golang.org/grpc "
		}
		if !strings.Contains(out, surely) {
			t.Fatal("the list of packages has not even what is surely linked")
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

// A single call of a method whose name the linker cannot know makes it keep
// every exported method of every type: megabytes.
func TestNoMethodByName(t *testing.T) {
	each(t, func(t *testing.T, daemon string, b budget) {
		if b.tool {
			return // it ends when its work is done
		}
		path := filepath.Join(t.TempDir(), "x")
		// go build keeps what the linker has said and says it again to the user who builds
		// the same main package next, with whatever -ldflags: megabytes. -e changes
		// nothing but that it is not the same.
		main := module + "/cmd/" + daemon
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", "grpcnotrace", "-ldflags=-dumpdep", "-gcflags="+main+"=-e", "-o", path, main)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !bytes.Contains(out, []byte("<UsedInIface>")) {
			t.Fatal("the linker does not say what it keeps and why: this test has to learn its new words")
		}
		// With them the runtime samples every allocation.
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
