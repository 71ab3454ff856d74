// Package deploy is the world of nnf-deploy: the real program changes several nodes, while connections
// break, processes are killed, disks are full and nodes restart. Each node is a directory with file
// systems of its own, in which the real scripts run, with the real rpm and with fakes of ssh and
// systemctl.
//
// It must not know how nnf-deploy works.
package deploy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/chaos"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// whyNot is why the tests cannot run here, or "".
var whyNot string

// common is for all worlds of a process.
var common struct {
	*lab.Lab
	*goods
	repository string
}

func TestMain(m *testing.M) {
	switch {
	case fakenode.IsSSH():
		fakenode.Main()
	case os.Getenv(readerVariable) != "":
		read()
		os.Exit(0)
	}
	os.Exit(inLab(m))
}

// inLab runs the tests in private namespaces.
func inLab(m *testing.M) int {
	features := lab.Enter()
	switch {
	case os.Geteuid() != 0 || !features.Private || !features.Full():
		whyNot = "the tests need root and mounts: " + features.Why
	default:
		for _, tool := range []string{"rpm", "rpmbuild"} {
			if _, err := exec.LookPath(tool); err != nil {
				whyNot = err.Error()
			}
		}
	}
	if whyNot != "" {
		fmt.Fprintln(os.Stderr, "chaos: deploy: skipped:", whyNot)
		if require.Set() {
			return 1
		}
		return m.Run()
	}
	l, err := lab.New("")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 1
	if err = prepare(l); err == nil {
		code = m.Run()
	}
	if cerr := l.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// prepare makes what all worlds need.
func prepare(l *lab.Lab) (err error) {
	common.Lab = l
	if common.repository, err = lab.Repository(); err != nil {
		return err
	}
	// Local users must reach the nodes, but not what is readable there.
	if err := os.Chmod(l.Dir, 0o755); err != nil {
		return err
	}
	for path, line := range map[string]string{"/etc/passwd": "nnf-dm:x:%[1]d:%[1]d::/:/sbin/nologin\n", "/etc/group": "nnf-dm:x:%[1]d:\n"} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		copied := filepath.Join(l.Dir, filepath.Base(path))
		if err := os.WriteFile(copied, fmt.Appendf(text, line, account), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(copied, path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	// The scriptlets of the packages look for systemd here. /run is private.
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		return err
	}
	dir := filepath.Join(l.Dir, "goods")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	common.goods, err = makeGoods(dir, common.repository)
	return err
}

// The values of arguments.
var (
	some    = []string{"all", "all", "1", "2", "3"}
	one     = []string{"1", "2", "3"}
	beside  = []string{"after", "after", "after", "beside"}
	millis  = []string{"10", "50", "100", "200", "300", "500", "800", "1500"}
	breaks  = []string{"dead", "denied", "cut 20", "cut 2000", "cut 200000", "cut 3000000", "stall 1500", "stall 500000", "reap 1200", "reap 100000", "reap 4000000", "break staged", "break switching", "break confirm", "hold switching"}
	calls   = []string{"daemon-reload", "restart", "reenable", "stop", "start", "disable"}
	refusal = []string{"hang", "refuse"}
)

var world = chaos.World{
	Name: "deploy", Length: 26, Play: play, Adjust: adjust, Verbs: verbs,
}

// verbs are all steps.
var verbs = map[string]chaos.Verb{
	"install":     {Weight: 26, Args: [][]string{{"a", "a", "b", "b", "c"}, {"rpm", "rpm", "bin"}, some, beside}},
	"credentials": {Weight: 10, Args: [][]string{{"a", "b", own}, some, beside}},
	"uninstall":   {Weight: 6, Args: [][]string{some, beside}},
	"look":        {Weight: 3, Args: [][]string{{"status", "dry-run"}, some}}, // changes nothing
	"join":        {Weight: 12},                                               // waits for nnf-deploy, and checks the nodes
	"wait":        {Weight: 20, Args: [][]string{millis}},
	"edit":        {Weight: 6, Args: [][]string{one, edits}},
	"add":         {Weight: 3}, // the third node

	"kill":       {Weight: 4, Fault: true, Args: [][]string{millis}}, // nnf-deploy, after milliseconds
	"interrupt":  {Weight: 4, Fault: true, Args: [][]string{millis}},
	"kill-shell": {Weight: 3, Fault: true, Args: [][]string{one, millis}}, // what depends on the connection
	"kill-all":   {Weight: 3, Fault: true, Args: [][]string{one, millis}},
	"kill-one":   {Weight: 3, Fault: true, Args: [][]string{one, millis}},                   // the youngest process
	"kill-rpm":   {Weight: 4, Fault: true, Args: [][]string{one, {"0", "20", "50", "100"}}}, // some milliseconds after its start
	"reboot":     {Weight: 4, Fault: true, Args: [][]string{one, millis}},
	"connection": {Weight: 8, Fault: true, Args: [][]string{one, names(breaks)}},
	"disk":       {Weight: 6, Fault: true, Args: [][]string{one, names(disks), {"0", "40", "400", "1500", "3000", "6000", "read-only"}}},
	"systemctl":  {Weight: 4, Fault: true, Args: [][]string{one, refusal, calls}},
	"permit":     {Weight: 4, Fault: true, Args: [][]string{one, keys(permissions)}},
	"link":       {Weight: 4, Fault: true, Args: [][]string{one, links}},
	"clear":      {Weight: 10},
}

// names makes words of texts with spaces.
func names(list []string) (words []string) {
	for _, s := range list {
		words = append(words, strings.ReplaceAll(s, " ", "="))
	}
	return words
}

func keys[V any](m map[string]V) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// adjust makes scripts start with an installation, and makes most faults that need a running nnf-deploy
// have one.
func adjust(random *rand.Rand, before chaos.Script, s *chaos.Step) {
	of := func(verb string) (args []string) {
		for _, values := range verbs[verb].Args {
			args = append(args, values[random.IntN(len(values))])
		}
		return args
	}
	running := false
	for _, b := range before {
		running = b.Verb != "join" && (running || slices.Contains([]string{"install", "credentials", "uninstall"}, b.Verb))
	}
	last := chaos.Step{}
	if len(before) > 0 {
		last = before[len(before)-1]
	}
	switch {
	case last.Verb == "permit" && verbs[s.Verb].Fault: // a local user can use some of them
		*s = chaos.Step{Verb: "link", Args: []string{last.Args[0], links[random.IntN(len(links))]}}
	case len(before) == 0:
		*s = chaos.Step{Verb: "install", Args: []string{"a", []string{"rpm", "bin"}[random.IntN(2)], "all", "after"}}
	case !running && slices.Contains([]string{"kill", "interrupt", "kill-shell", "kill-all", "kill-one", "kill-rpm", "reboot"}, s.Verb):
		*s = chaos.Step{Verb: "install", Args: of("install")}
	case running && s.Verb == "join" && random.IntN(2) == 0:
		*s = chaos.Step{Verb: "wait", Args: of("wait")}
	}
}

func TestSeeds(t *testing.T) {
	need(t)
	world.Seeds(t)
}

func TestScripts(t *testing.T) {
	need(t)
	world.Scripts(t)
}

func TestTexts(t *testing.T) { world.Texts(t) }

func need(t *testing.T) {
	t.Helper()
	if whyNot != "" {
		t.Skip(whyNot)
	}
}

// nodes is the world: the nodes, and the runs of nnf-deploy.
type nodes struct {
	*chaos.Log
	tb      lab.TB
	dir     string
	ssh     string
	list    []*node
	watcher *watcher
	done    chan struct{}
	ended   sync.WaitGroup

	mu     sync.Mutex // for the files of the administrator, which the watcher compares
	active []*run
	number int
	counts chaos.Counts

	patient bool // runs have no time limit
}

// play plays a script.
func play(_ *testing.T, tb lab.TB, s chaos.Script) chaos.Counts {
	w := newNodes(tb)
	defer w.close()
	for _, step := range s {
		switch {
		case verbs[step.Verb].Fault:
			w.counts.Faults++
		case step.Verb != "wait" && step.Verb != "join":
			w.counts.Operations++
		}
		w.note("step", step.String())
		w.do(step.Verb, append(slices.Clone(step.Args), "", "", "", ""))
		if w.report(w.watcher.found()...); w.Failed() {
			break
		}
	}
	if !w.Failed() {
		w.converge()
	}
	w.counts.Scripts = 1
	w.counts.Checks += int(w.watcher.checks.Load())
	return w.counts
}

func newNodes(tb lab.TB) *nodes {
	tb.Helper()
	w := &nodes{Log: chaos.NewLog(), tb: tb, done: make(chan struct{})}
	dir, err := os.MkdirTemp(common.Dir, "fleet-")
	w.must(err)
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.dir = dir
	w.must(os.Chmod(dir, 0o755))
	w.must(fakenode.Prepare(dir))
	w.must(tools(dir, common.repository))
	w.ssh, err = fakenode.WriteSSH(dir)
	w.must(err)
	var roots []string
	for _, name := range nodeNames {
		n := newNode(tb, dir, name)
		w.list = append(w.list, n)
		for _, dir := range []string{"etc", "usr", "var", "srv"} {
			roots = append(roots, n.path(dir))
		}
	}
	w.system(2)
	w.watcher, err = newWatcher(w.changed, roots...)
	w.must(err)
	w.ended.Go(func() { w.watcher.arguments(w.done) })
	return w
}

func (w *nodes) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

// close ends everything that still runs.
func (w *nodes) close() {
	for _, r := range w.active {
		r.signal(unix.SIGKILL)
		<-r.done
	}
	for _, n := range w.list {
		n.kill(func([]process, process) bool { return true })
	}
	close(w.done)
	w.ended.Wait()
	w.watcher.close()
	if w.Failed() || os.Getenv("CHAOS_SCRIPT") != "" {
		w.tb.Log(w.String())
	}
}

// note adds a line to the log, which is printed if a check fails.
func (w *nodes) note(args ...any) { w.Note(strings.TrimRight(fmt.Sprintln(args...), "\n")) }

// report reports failed checks.
func (w *nodes) report(problems ...string) {
	for _, p := range problems {
		w.Wrong("%s", p)
		w.tb.Error(p)
	}
}

// system writes the SystemConfiguration with the first nodes.
func (w *nodes) system(count int) {
	text := "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  externalComputeNodes:\n"
	for _, n := range nodeNames[:count] {
		text += "  - name: " + n + "\n"
	}
	w.must(os.WriteFile(filepath.Join(w.dir, "system.yaml"), []byte(text), 0o600))
}

// added reports whether the third node belongs to the system.
func (w *nodes) added() bool {
	text, _ := os.ReadFile(filepath.Join(w.dir, "system.yaml"))
	return strings.Contains(string(text), nodeNames[2])
}

// node returns the node of an argument, or nil if there is none.
func (w *nodes) node(arg string) *node {
	i, _ := strconv.Atoi(arg)
	if i < 1 || i > len(w.list) || i == 3 && !w.added() {
		return nil
	}
	return w.list[i-1]
}

// selected returns the nodes of an argument.
func (w *nodes) selected(arg string) []*node {
	if arg != "all" {
		if n := w.node(arg); n != nil {
			return []*node{n}
		}
		return nil
	}
	if w.added() {
		return w.list
	}
	return w.list[:2]
}

// changed is called when a file has changed. It returns what is wrong if only the administrator may
// change it.
func (w *nodes) changed(path string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.list {
		name, below := strings.CutPrefix(path, n.root+"/")
		if !below {
			continue
		}
		if text, mine := n.admin[name]; mine && !strings.HasSuffix(name, "/config.toml") && n.get(name) != text {
			return n.name + ": the administrator's " + name + " was changed"
		}
	}
	return ""
}

// do does one step.
func (w *nodes) do(verb string, a []string) {
	n := w.node(a[0])
	switch verb {
	case "install":
		w.install(a[0], a[1], w.selected(a[2]), a[3] == "beside")
	case "credentials":
		w.credentials(a[0], w.selected(a[1]), a[2] == "beside")
	case "uninstall":
		t := target{none, none}
		w.start("uninstall", w.selected(a[0]), t, a[1] == "beside", "--daemons", w.file("daemons-a.yaml"))
	case "look":
		args := []string{"--daemons", w.file("daemons-a.yaml")}
		if a[0] == "dry-run" {
			w.start("install", w.selected(a[1]), target{}, true, w.arguments("b", "b", "--dry-run", "--no-programs")...)
		} else {
			w.start("status", w.selected(a[1]), target{}, true, args...)
		}
	case "join":
		w.join()
	case "wait":
		pause(a[0])
	case "add":
		w.system(3)
	case "edit":
		if n != nil {
			w.mu.Lock()
			n.edit(a[1])
			w.mu.Unlock()
		}
	case "kill", "interrupt":
		w.delay(a[0])
		for _, r := range w.active {
			if r.finished() {
				continue
			}
			w.counts.Kills++
			if verb == "kill" {
				r.killed = true
				r.signal(unix.SIGKILL)
			} else {
				r.interrupted = true
				r.signal(unix.SIGINT)
			}
			break
		}
	case "clear":
		w.clear()
	default:
		if n != nil {
			w.harm(n, verb, a)
		}
	}
}

// pause waits some milliseconds: when something happens is a part of the script.
func pause(millis string) {
	ms, _ := strconv.Atoi(millis)
	time.Sleep(time.Duration(ms) * time.Millisecond)
}

// delay is pause while nnf-deploy runs.
func (w *nodes) delay(millis string) {
	if slices.ContainsFunc(w.active, func(r *run) bool { return !r.finished() }) {
		pause(millis)
	}
}

// harm does a fault of a node.
func (w *nodes) harm(n *node, verb string, a []string) {
	killed := false
	if verb != "kill-rpm" && slices.Contains(millis, a[1]) {
		w.delay(a[1])
	}
	switch verb {
	case "kill-shell":
		killed = n.kill(func(list []process, p process) bool { return !switches(list, p) })
	case "kill-all":
		killed = n.kill(func([]process, process) bool { return true })
	case "kill-one":
		killed = n.killOne()
	case "kill-rpm":
		killed = w.killRPM(n, a[1])
	case "reboot":
		killed = true
		n.reboot()
	case "connection":
		n.fault(strings.ReplaceAll(a[1], "=", " "))
	case "disk":
		n.disk(a[1], a[2])
	case "systemctl":
		text := a[2]
		if a[1] == "refuse" && a[2] != "daemon-reload" {
			text += " clientmountd.service"
		}
		n.put("run/fake/"+a[1], text, 0o600)
	case "permit":
		p := permissions[a[1]]
		w.watcher.excuse(n.path(p.path), func() error { return n.permit(p) })
	case "link":
		n.plant(a[1])
	}
	if killed {
		w.counts.Kills++
	}
}

// killRPM waits for a transaction of rpm while nnf-deploy runs, and kills rpm some milliseconds after its
// start. It reports whether there was one. The switch must undo what rpm has done.
func (w *nodes) killRPM(n *node, millis string) bool {
	for slices.ContainsFunc(w.active, func(r *run) bool { return !r.finished() }) {
		for _, p := range n.processes() {
			if strings.HasPrefix(p.command, "/usr/bin/rpm ") && strings.Contains(p.command, " -U ") {
				pause(millis)
				return unix.Kill(p.pid, unix.SIGKILL) == nil
			}
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// clear ends all faults.
func (w *nodes) clear() {
	for _, n := range w.list {
		n.fault("")
		for _, dir := range disks {
			n.disk(dir, "usual")
		}
		for _, file := range []string{"hang", "refuse"} {
			_ = os.Remove(n.path("run/fake/" + file)) // it may not exist
		}
		n.unplant()
	}
}

func (w *nodes) file(name string) string { return filepath.Join(common.goods.dir, name) }

// arguments returns those of install for a version of the settings and a directory with credentials.
func (w *nodes) arguments(version, credentials string, more ...string) []string {
	return append([]string{
		"--daemons", w.file("daemons-" + version + ".yaml"), "--credentials", w.file("credentials-" + credentials), "--identity", "shared",
		"--kubernetes-service-host", version + ".example", "--kubernetes-service-port", "6443", "--ready-timeout", readyTimeout.String(),
	}, more...)
}

func (w *nodes) install(release, how string, list []*node, beside bool) {
	var more []string
	if how == "rpm" {
		for _, d := range []string{"clientmountd", "nnf-dm"} {
			more = append(more, "--rpm", common.goods.rpm(release, d))
		}
	} else {
		more = []string{"--binary-dir", w.file("bin-" + release)}
	}
	w.start("install", list, target{release + "/" + how, release}, beside, w.arguments(release, release, more...)...)
}

func (w *nodes) credentials(version string, list []*node, beside bool) {
	dir := version
	if version == own && len(list) > 0 {
		list = list[:1] // the tokens are for one node
		dir = own + "-" + list[0].name
	}
	w.start("install", list, target{settings: version}, beside, w.arguments(version, dir, "--no-programs")...)
}

// start starts nnf-deploy, after all that run, or beside one.
func (w *nodes) start(verb string, list []*node, t target, beside bool, args ...string) {
	if len(list) == 0 {
		return
	}
	running := 0
	for _, r := range w.active {
		if !r.finished() {
			running++
		}
	}
	if !beside || running > 1 {
		w.join()
	}
	r := &run{verb: verb, targets: map[string]target{}}
	for _, n := range list {
		r.nodes = append(r.nodes, n.name)
		r.targets[n.name] = t
		n.runs = append(n.runs, r)
	}
	w.number++
	args = append(args, "--ssh", w.ssh, "--system-config", filepath.Join(w.dir, "system.yaml"), "--connect-timeout", "2s")
	if !w.patient {
		args = append(args, "--node-timeout", nodeTimeout.String())
	}
	w.must(start(r, filepath.Join(common.repository, "bin", "nnf-deploy"), w.dir, w.number, append(args, r.nodes...)...))
	w.active = append(w.active, r)
}

// limits of the world, on a busy machine. Otherwise a run takes less than 10 s.
const (
	endsWithin      = chaos.Patience // nnf-deploy, whatever happens
	convergesWithin = chaos.Patience
)

// join waits until all nnf-deploy have ended, and checks the nodes on which nothing runs.
func (w *nodes) join() {
	for _, r := range w.active {
		select {
		case <-r.done:
		case <-time.After(endsWithin):
			w.report(fmt.Sprintf("nnf-deploy %s still runs after %v", r.verb, endsWithin))
			r.killed = true
			r.signal(unix.SIGKILL)
			<-r.done
		}
		problems := r.read()
		w.note(r.verb, r.targets, "took", r.ended.Sub(r.started).Round(time.Millisecond), "exit code", r.cmd.ProcessState.ExitCode(), r.reported)
		for _, p := range problems {
			w.report("nnf-deploy " + r.verb + ": " + p)
		}
	}
	w.active = nil
	for _, n := range w.list {
		for end := time.Now().Add(2 * time.Second); !n.idle() && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if n.idle() {
			w.check(n)
		}
	}
}

// check checks a node on which nothing runs.
func (w *nodes) check(n *node) {
	w.counts.Checks++
	w.mu.Lock()
	problems := common.goods.check(n)
	w.mu.Unlock()
	w.note(n.name, "is", fmt.Sprint(n.model))
	w.report(problems...)
}

// converge ends all faults. One more run must then install each node, and another one must leave nothing.
func (w *nodes) converge() {
	w.note("converge")
	w.clear()
	w.join()
	began := time.Now()
	for _, n := range w.list {
		for !n.idle() && time.Since(began) < convergesWithin { // a switch waits for its daemons
			time.Sleep(10 * time.Millisecond)
		}
	}
	w.join()
	if w.Failed() {
		return
	}
	w.patient = true
	w.install("b", "rpm", w.selected("all"), false)
	last := w.active[0]
	w.join()
	for _, n := range w.selected("all") {
		if r := last.reported[n.name]; !r.good() {
			w.report(fmt.Sprintf("%s does not converge: %v", n.name, r))
		}
	}
	if took := time.Since(began); took > convergesWithin {
		w.report(fmt.Sprintf("the nodes need %v to converge", took))
	} else {
		w.counts.Slowest = took
	}
	if w.Failed() {
		return
	}
	w.do("uninstall", []string{"all", "after"})
	last = w.active[0]
	w.join()
	for _, n := range w.selected("all") {
		if r := last.reported[n.name]; !r.good() {
			w.report(fmt.Sprintf("%s is not uninstalled: %v", n.name, r))
		}
		for _, path := range n.remains() {
			w.report(n.name + ": left after the removal: " + path)
		}
		for _, p := range n.processes() {
			w.report(fmt.Sprintf("%s: a process is left: %v", n.name, p))
		}
	}
	w.report(w.watcher.found()...)
}

// temporary matches the temporary files of rpm, which it leaves if the whole node crashes.
var temporary = regexp.MustCompile(`;[0-9a-f]{8}$`)

// remains returns what is left of nnf-deploy: everything that a new node does not have, except the
// administrator's files, their directories, and what rpm keeps for the administrator.
func (n *node) remains() (list []string) {
	mine := map[string]bool{}
	for path := range n.admin {
		for ; path != "."; path = filepath.Dir(path) {
			mine[path] = true
		}
	}
	kept := func(path string) bool {
		if n.rpmCrashed && temporary.MatchString(path) {
			return true
		}
		return n.before[path] || mine[path] || strings.HasSuffix(path, ".rpmsave") || strings.HasSuffix(path, ".rpmnew")
	}
	all := n.paths()
	for path := range all {
		if kept(path) {
			continue
		}
		// A directory that has something of the administrator stays.
		used := false
		for other := range all {
			used = used || strings.HasPrefix(other, path+"/") && kept(other)
		}
		if !used {
			list = append(list, path)
		}
	}
	slices.Sort(list)
	return list
}
