package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rabbit is a running "devcluster rabbit" with its cluster.
type rabbit struct {
	c      *cluster
	flags  []string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	files  string // directory that replaces /mnt/nnf/U-0/rabbit-01-3 and /lus
}

func startRabbit(t *testing.T, c *cluster, flags ...string) *rabbit {
	t.Helper()
	files, err := os.MkdirTemp("", "rabbit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(files) })
	if err := os.Chmod(files, 0o755); err != nil { // movements run as another user
		t.Fatal(err)
	}
	for _, dir := range []string{"nnf/tree/sub", "lus"} {
		if err := os.MkdirAll(filepath.Join(files, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(files, "lus"), userID(), userID()); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"nnf/file": 5, "nnf/tree/a": 100_000, "nnf/tree/sub/b": 1000} {
		if err := os.WriteFile(filepath.Join(files, name), bytes.Repeat([]byte("x"), size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &rabbit{c: c, files: files, flags: append([]string{"rabbit", "--dir", c.dir, "--stdin",
		"--map", "/mnt/nnf/U-0/rabbit-01-3=" + files + "/nnf", "--map", "/mnt/nnf/U-0=" + files + "/nnf", "--map", "/lus=" + files + "/lus"}, flags...)}
	r.start(t)
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("output of the rabbit:\n%s", &r.stderr)
		}
	})
	return r
}

func (r *rabbit) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(binary, r.flags...)
	r.cmd.Stderr = &r.stderr
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stdin = stdin
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready rabbit rabbit-01,nnf-dm-system\n" {
		r.cmd.Wait()
		t.Fatalf("ready line %q\n%s", line, &r.stderr)
	}
}

func (r *rabbit) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// control writes the control file.
func (r *rabbit) control(t *testing.T, lines string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.c.dir, "rabbit", "faults"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
}

// userID returns an unprivileged user if the test runs as root, otherwise the current
// user.
func userID() int {
	if os.Getuid() == 0 {
		return 1001
	}
	return os.Getuid()
}

// create creates a movement, after change has modified its spec. It returns
// NAMESPACE/NAME.
func (r *rabbit) create(t *testing.T, name, source, destination string, change func(spec map[string]any)) string {
	t.Helper()
	spec := map[string]any{
		"source":      map[string]any{"path": source, "storageReference": map[string]any{"kind": "NnfNodeStorage", "name": "s", "namespace": "rabbit-01"}},
		"destination": map[string]any{"path": destination},
		"userId":      userID(), "groupId": userID(),
		"profileReference": map[string]any{"kind": "NnfDataMovementProfile", "name": "default", "namespace": "nnf-system"},
		"userConfig":       map[string]any{},
	}
	if change != nil {
		change(spec)
	}
	namespace := "rabbit-01"
	if space, rest, ok := strings.Cut(name, "/"); ok {
		namespace, name = space, rest
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "nnf.cray.hpe.com/v1alpha11", "kind": "NnfDataMovement",
		"metadata": map[string]any{"name": name, "namespace": namespace}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	r.c.must(t, string(text), "apply", "-f", "-")
	return namespace + "/" + name
}

func (r *rabbit) wait(t *testing.T, name, condition string) {
	t.Helper()
	if code, _, err := r.c.call(t, "", "wait", "nnfdatamovements", name, "--for", condition, "--timeout", "2m"); code != 0 {
		t.Fatalf("%s\n%s", err, r.c.must(t, "", "get", "nnfdatamovements", name))
	}
}

// movement has the fields that the checks use.
type movement struct {
	Metadata struct {
		Finalizers  []string
		Annotations map[string]string
	}
	Status map[string]any
}

func (r *rabbit) get(t *testing.T, name string) movement {
	t.Helper()
	var m movement
	if err := json.Unmarshal([]byte(r.c.must(t, "", "get", "nnfdatamovements", name, "-o", "json")), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// is compares fields of the status. nil: not set; "*": any value; "*x*": contains x.
func (m movement) is(t *testing.T, want map[string]any) {
	t.Helper()
	for path, w := range want {
		var at any = m.Status
		for _, name := range strings.Split(path, ".") {
			next, _ := at.(map[string]any)
			at = next[name]
		}
		text, _ := w.(string)
		got := fmt.Sprint(at)
		switch {
		case w == nil && at == nil, text == "*" && at != nil, fmt.Sprint(w) == got && at != nil:
		case len(text) > 2 && strings.HasPrefix(text, "*") && strings.Contains(got, strings.Trim(text, "*")):
		default:
			t.Errorf("status.%s is %v, want %v", path, at, w)
		}
	}
}

// commands returns the command lines of a movement. The log is empty until the first
// command of any movement: the checks run in any order.
func (r *rabbit) commands(t *testing.T, name, what string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(r.c.read(t, "rabbit/commands.log")) {
		var record struct{ Movement, What, Command string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if record.Movement == name && record.What == what {
			out = append(out, record.Command)
		}
	}
	return out
}

func (r *rabbit) holds(t *testing.T, name string, size int64) {
	t.Helper()
	if info, err := os.Stat(filepath.Join(r.files, name)); err != nil || info.Size() != size {
		t.Errorf("%s: %v, %v; want %d bytes", name, info, err, size)
	}
}

func owner(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

const mount = "/mnt/nnf/U-0/rabbit-01-3"

// pause gives the rabbit time for an unexpected action.
func pause() { time.Sleep(300 * time.Millisecond) }

func TestRabbit(t *testing.T) {
	c := start(t, t.TempDir())
	r := startRabbit(t, c, "--fault", "*/flag* minor=1")
	for name, check := range map[string]func(*testing.T, *rabbit){
		"tree": checkTree, "contents": checkContents, "file": checkFile, "whole mount": checkWholeMount, "lustre": checkLustre, "dry run": checkDryRun,
		"options": checkOptions, "injection": checkInjection, "failure": checkFailure, "progress": checkProgress,
		"cancel": checkCancel, "cancel before start": checkCancelBeforeStart, "delete before start": checkDeleteBeforeStart,
		"delete running": checkDeleteRunning, "invalid": checkInvalid, "minor": checkMinor, "storm": checkStorm, "hold": checkHold,
	} {
		t.Run(name, func(t *testing.T) { check(t, r) })
		r.control(t, "")
	}
	t.Run("death", func(t *testing.T) { checkDeath(t, r) })
	t.Run("killed", func(t *testing.T) { checkKilled(t, r) })
	r.stdin.Close()
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("exited with %v", err)
	}
	c.must(t, "", "down", "--purge")
	if _, err := os.Stat(filepath.Join(c.dir, "rabbit")); !os.IsNotExist(err) {
		t.Errorf("purge did not remove the directory of the rabbit: %v", err)
	}
}

func checkTree(t *testing.T, r *rabbit) {
	name := r.create(t, "tree", mount+"/tree", "/lus/tree", nil)
	r.wait(t, name, "status.state=Finished")
	m := r.get(t, name)
	m.is(t, map[string]any{"status": "Success", "startTime": "*", "endTime": "*", "message": nil, "error": nil, "restarts": nil,
		"commandStatus.progress": 100, "commandStatus.elapsedTime": "*", "commandStatus.lastMessage": "*(100%)*", "commandStatus.lastMessageTime": "*",
		"commandStatus.files": 2, "commandStatus.directories": 2, "commandStatus.command": "*mpirun --allow-run-as-root --hostfile *"})
	if len(m.Metadata.Finalizers) != 1 || m.Metadata.Finalizers[0] != "dm.cray.hpe.com" {
		t.Errorf("finalizers %q", m.Metadata.Finalizers)
	}
	r.holds(t, "lus/tree/rabbit-01-3/tree/a", 100_000)
	r.holds(t, "lus/tree/rabbit-01-3/tree/sub/b", 1000)
	if got := owner(t, filepath.Join(r.files, "lus/tree/rabbit-01-3/tree/a")); got != userID() {
		t.Errorf("the owner of the copy is %d", got)
	}
	if got := r.commands(t, name, "copy"); len(got) != 1 || got[0] != m.Status["commandStatus"].(map[string]any)["command"] {
		t.Errorf("commands.log has %q", got)
	}
	r.c.must(t, "", "delete", "nnfdatamovements", name, "--wait", "1m")
}

func checkContents(t *testing.T, r *rabbit) {
	name := r.create(t, "contents", mount+"/tree/", "/lus/contents/", nil)
	r.wait(t, name, "status.status=Success")
	r.holds(t, "lus/contents/rabbit-01-3/a", 100_000)
}

func checkFile(t *testing.T, r *rabbit) {
	name := r.create(t, "file", mount+"/file", "/lus/file/renamed", nil)
	r.wait(t, name, "status.status=Success")
	r.holds(t, "lus/file/rabbit-01-3/renamed", 5)
}

func checkWholeMount(t *testing.T, r *rabbit) {
	name := r.create(t, "whole", mount, "/lus/whole", nil)
	r.wait(t, name, "status.status=Success")
	r.holds(t, "lus/whole/nnf/file", 5) // --map renames the directory of the rabbit
}

func checkLustre(t *testing.T, r *rabbit) {
	storage := func(spec map[string]any) {
		spec["source"].(map[string]any)["storageReference"] = map[string]any{"kind": "NnfStorage", "name": "ost", "namespace": "default"}
	}
	name := r.create(t, "nnf-dm-system/no-storage", "/mnt/nnf/U-0/tree", "/lus/lustre", storage)
	r.wait(t, name, "status.status=Invalid")
	r.c.must(t, `{"apiVersion": "nnf.cray.hpe.com/v1alpha11", "kind": "NnfStorage", "metadata": {"name": "ost"}}`, "apply", "-f", "-")
	name = r.create(t, "nnf-dm-system/lustre", "/mnt/nnf/U-0/tree", "/lus/lustre", storage)
	r.wait(t, name, "status.status=Success")
	r.holds(t, "lus/lustre/tree/sub/b", 1000) // no directory per rabbit
}

func config(values map[string]any) func(map[string]any) {
	return func(spec map[string]any) { spec["userConfig"] = values }
}

func checkDryRun(t *testing.T, r *rabbit) {
	name := r.create(t, "dry", mount+"/tree", "/lus/dry", config(map[string]any{"dryrun": true}))
	r.wait(t, name, "status.status=Success")
	r.get(t, name).is(t, map[string]any{"commandStatus.command": "true"})
	if _, err := os.Stat(filepath.Join(r.files, "lus/dry")); err == nil {
		t.Error("a dry run created the destination")
	}
}

func checkOptions(t *testing.T, r *rabbit) {
	name := r.create(t, "options", mount+"/file", "/lus/options/", config(map[string]any{
		"mpirunOptions": "--oversubscribe -np 2", "dcpOptions": "--preserve --chunksize 1M", "storeStdout": true, "logStdout": true, "slots": 0, "maxSlots": 3}))
	r.wait(t, name, "status.status=Success")
	r.get(t, name).is(t, map[string]any{"message": "*Items: 1*",
		"commandStatus.command": "*mpirun --oversubscribe -np 2 --allow-run-as-root*"})
	if got := r.commands(t, name, "copy")[0]; !strings.Contains(got, "dcp --preserve --chunksize 1M --progress 1 --uid "+fmt.Sprint(userID())) {
		t.Errorf("command %q", got)
	}
	name = r.create(t, "unknown-option", mount+"/file", "/lus/options/", config(map[string]any{"dcpOptions": "--fly"}))
	r.wait(t, name, "status.status=Failed")
	r.get(t, name).is(t, map[string]any{"message": "*unknown flag: --fly*"})
}

// The text of a user reaches the shell unquoted. Otherwise tests for shell injection
// would prove nothing.
func checkInjection(t *testing.T, r *rabbit) {
	mark := filepath.Join(r.files, "broken-out")
	name := r.create(t, "break-out", mount+"/file", "/lus/out/", config(map[string]any{"dcpOptions": "--version; touch " + mark + ";\n#"}))
	r.wait(t, name, "status.state=Finished")
	r.holds(t, "broken-out", 0)
	if got := r.commands(t, name, "copy"); len(got) != 1 || !strings.Contains(got[0], "touch "+mark+";\n#") {
		t.Errorf("commands.log has %q", got)
	}
}

func checkFailure(t *testing.T, r *rabbit) {
	r.control(t, "# comment\n*/failure exit=7\nwrong line\n")
	name := r.create(t, "failure", mount+"/tree", "/lus/failure", nil)
	r.wait(t, name, "status.state=Finished")
	r.get(t, name).is(t, map[string]any{"status": "Failed", "startTime": "*", "endTime": "*", "message": "*exit status 7: [*",
		"error.severity": "Fatal", "error.type": "Internal", "error.debugMessage": "*injected failure*"})
}

// slow makes a copy of the tree take about 25 s.
const slow = "* rate=4k\n"

func checkProgress(t *testing.T, r *rabbit) {
	r.control(t, "*/tree rate=10k\n") // by source path; 10 s
	name := r.create(t, "progress", mount+"/tree", "/lus/progress", nil)
	r.wait(t, name, "status.state=Running")
	r.get(t, name).is(t, map[string]any{"status": nil, "startTime": "*", "endTime": nil, "commandStatus.command": "*dcp*"})
	for percent, until := 0.0, time.Now().Add(time.Minute); percent <= 0 || percent >= 100; {
		status, _ := r.get(t, name).Status["commandStatus"].(map[string]any)
		percent, _ = status["progress"].(float64)
		if time.Now().After(until) || percent == 100 {
			t.Fatalf("no intermediate progress: %v", status)
		}
	}
	r.wait(t, name, "status.status=Success")
}

func cancel(t *testing.T, r *rabbit, name string) {
	t.Helper()
	r.c.must(t, "", "patch", "nnfdatamovements", name, `{"spec": {"cancel": true}}`)
}

func checkCancel(t *testing.T, r *rabbit) {
	r.control(t, slow)
	name := r.create(t, "cancel", mount+"/tree", "/lus/cancel", nil)
	r.wait(t, name, "status.state=Running")
	cancel(t, r, name)
	r.wait(t, name, "status.state=Finished")
	r.get(t, name).is(t, map[string]any{"status": "Cancelled", "endTime": "*", "error": nil})
	r.c.must(t, "", "delete", "nnfdatamovements", name, "--wait", "1m")
}

func checkCancelBeforeStart(t *testing.T, r *rabbit) {
	r.control(t, "* delay=1h\n")
	name := r.create(t, "early-cancel", mount+"/tree", "/lus/early", nil)
	r.wait(t, name, `metadata.finalizers.0=dm.cray.hpe.com`)
	cancel(t, r, name)
	r.control(t, "")
	pause()
	if status := r.get(t, name).Status; len(status) != 0 {
		t.Errorf("status %v", status)
	}
	r.c.must(t, "", "delete", "nnfdatamovements", name, "--wait", "1m")
}

func checkDeleteBeforeStart(t *testing.T, r *rabbit) {
	r.control(t, "* delay=1h\n")
	name := r.create(t, "early-delete", mount+"/tree", "/lus/early", nil)
	r.c.must(t, "", "patch", "nnfdatamovements", name, `{"metadata": {"finalizers": ["dm.cray.hpe.com", "test/see"]}}`)
	r.c.must(t, "", "delete", "nnfdatamovements", name)
	r.wait(t, name, "metadata.finalizers.0=test/see")
	m := r.get(t, name)
	m.is(t, map[string]any{"state": "Finished", "status": "Cancelled", "startTime": "*", "endTime": m.Status["startTime"]})
	r.c.must(t, "", "patch", "nnfdatamovements", name, `{"metadata": {"finalizers": null}}`)
}

func checkDeleteRunning(t *testing.T, r *rabbit) {
	r.control(t, slow)
	name := r.create(t, "delete-running", mount+"/tree", "/lus/delete", nil)
	r.wait(t, name, "status.state=Running")
	r.c.must(t, "", "delete", "nnfdatamovements", name, "--wait", "1m")
}

func checkInvalid(t *testing.T, r *rabbit) {
	for name, change := range map[string]func(map[string]any){
		"profile": func(spec map[string]any) { spec["profileReference"].(map[string]any)["name"] = "none" },
		"source":  func(spec map[string]any) { spec["source"].(map[string]any)["path"] = mount + "/none" },
		"mkdir":   func(spec map[string]any) { spec["destination"].(map[string]any)["path"] = "/dev/null/x/" },
	} {
		name = r.create(t, "invalid-"+name, mount+"/tree", "/lus/invalid", change)
		r.wait(t, name, "status.state=Finished")
		r.get(t, name).is(t, map[string]any{"status": "Invalid", "endTime": nil, "message": "*", "error.severity": "Fatal", "error.type": "User"})
		if got := r.commands(t, name, "copy"); len(got) > 0 {
			t.Errorf("%s ran %q", name, got)
		}
		r.c.must(t, "", "delete", "nnfdatamovements", name, "--wait", "1m")
	}
}

func checkMinor(t *testing.T, r *rabbit) {
	r.control(t, "*/minor minor=1000\n")
	name := r.create(t, "minor", mount+"/file", "/lus/minor/", nil)
	r.wait(t, name, "status.error.severity=Minor")
	r.get(t, name).is(t, map[string]any{"state": nil, "status": nil, "message": "*injected minor error*"})
	r.control(t, "")
	r.wait(t, name, "status.status=Success")
	r.get(t, name).is(t, map[string]any{"message": nil, "error": nil})
	name = r.create(t, "flag", mount+"/file", "/lus/minor/", nil) // by --fault
	r.wait(t, name, "status.status=Success")
}

func checkStorm(t *testing.T, r *rabbit) {
	r.control(t, "*/storm storm=200 rate=60k\n")
	name := r.create(t, "storm", mount+"/tree", "/lus/storm", nil)
	r.wait(t, name, "status.status=Success")
	changes, _ := strconv.Atoi(r.get(t, name).Metadata.Annotations["devcluster/storm"])
	if changes < 20 {
		t.Errorf("%d changes", changes)
	}
}

func checkHold(t *testing.T, r *rabbit) {
	r.control(t, "rabbit-01/hold hold=true\n")
	name := r.create(t, "hold", mount+"/file", "/lus/hold/", nil)
	pause()
	if m := r.get(t, name); len(m.Status) != 0 || len(m.Metadata.Finalizers) != 0 {
		t.Errorf("touched: %+v", m)
	}
	r.control(t, "")
	r.wait(t, name, "status.status=Success")
}

func checkDeath(t *testing.T, r *rabbit) {
	r.control(t, "*/death die=300ms rate=30k\n")
	name := r.create(t, "death", mount+"/tree", "/lus/death", nil)
	r.wait(t, name, "status.restarts=1")
	r.get(t, name).is(t, map[string]any{"state": "Running", "endTime": nil})
	r.wait(t, name, "status.status=Success")
	r.get(t, name).is(t, map[string]any{"restarts": 1})
	if got := r.commands(t, name, "copy"); len(got) != 2 || got[0] != got[1] {
		t.Errorf("ran %q", got)
	}
}

func checkKilled(t *testing.T, r *rabbit) {
	r.control(t, slow)
	name := r.create(t, "killed", mount+"/tree", "/lus/killed", nil)
	r.wait(t, name, "status.state=Running")
	copied := filepath.Join(r.files, "lus/killed/rabbit-01-3/tree/a")
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if info, err := os.Stat(copied); err == nil && info.Size() > 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatal("no data is copied")
		}
	}
	r.kill()
	pause()
	before, _ := os.Stat(copied)
	pause()
	if after, err := os.Stat(copied); err != nil || after.Size() != before.Size() {
		t.Errorf("the copy continues after the rabbit is killed")
	}
	r.control(t, "")
	r.start(t)
	r.wait(t, name, "status.status=Success")
	r.get(t, name).is(t, map[string]any{"restarts": 1})
}
