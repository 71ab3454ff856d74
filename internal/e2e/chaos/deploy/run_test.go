package deploy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// run is one nnf-deploy.
type run struct {
	verb    string
	targets map[string]target // by node
	nodes   []string
	cmd     *exec.Cmd
	out     bytes.Buffer
	results string // file
	done    chan struct{}
	started time.Time
	ended   time.Time

	killed, interrupted bool
	reported            map[string]result // by node
}

// result is what nnf-deploy reports about a node.
type result struct {
	Node, Result, Cause string
}

// good reports whether the node has the state that was asked for, or would get it (--dry-run).
func (r result) good() bool {
	return r.Result == "ok" || r.Result == "unchanged" || r.Result == "differs"
}

// limits of nnf-deploy, for a busy machine. The fake daemons need much less.
const (
	nodeTimeout  = 20 * time.Second
	readyTimeout = 4 * time.Second
)

// start starts nnf-deploy. ended is called when it has ended.
func start(r *run, program, dir string, number int, args ...string) error {
	r.results = filepath.Join(dir, fmt.Sprintf("results-%d.jsonl", number))
	args = append(args, "--results", r.results)
	r.cmd = exec.Command(program, append([]string{r.verb}, args...)...)
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.done, r.started = make(chan struct{}), time.Now()
	r.cmd.WaitDelay = time.Second // the ssh of a killed nnf-deploy may keep its output
	if err := r.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait() // the exit code is checked later
		r.ended = time.Now()
	}()
	return nil
}

func (r *run) finished() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// signal sends a signal to nnf-deploy alone, unless it has ended.
func (r *run) signal(s syscall.Signal) {
	if !r.finished() {
		_ = r.cmd.Process.Signal(s)
	}
}

// read reads the results, and returns what is wrong with them and with the exit code.
func (r *run) read() (problems []string) {
	r.reported = map[string]result{}
	if strings.Contains(r.out.String(), secretMark) {
		problems = append(problems, "a secret is in the output")
	}
	data, err := os.ReadFile(r.results)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return append(problems, err.Error())
	}
	good := true
	s := bufio.NewScanner(bytes.NewReader(data))
	for first := true; s.Scan(); first = false {
		var one result
		if first {
			continue
		}
		if err := json.Unmarshal(s.Bytes(), &one); err != nil {
			if !r.killed {
				problems = append(problems, "the results: "+err.Error())
			}
			continue
		}
		r.reported[one.Node] = one
		good = good && one.good()
		if one.Result == "failed" && one.Cause == "" {
			problems = append(problems, one.Node+" failed without a cause")
		}
	}
	code := r.cmd.ProcessState.ExitCode()
	switch {
	case r.killed:
	case r.interrupted && code == 128+int(unix.SIGINT):
	case r.interrupted && code == -1 && r.out.Len() == 0 && len(r.reported) == 0: // before main runs
	case err != nil:
		problems = append(problems, fmt.Sprintf("exit code %d without results:\n%s", code, &r.out))
	case len(r.reported) != len(r.nodes):
		problems = append(problems, fmt.Sprintf("results of %d nodes, not of %d", len(r.reported), len(r.nodes)))
	case r.verb == "status":
		if code != 0 && code != 1 {
			problems = append(problems, fmt.Sprintf("exit code %d of status", code))
		}
	case good != (code == 0) || code > 1:
		problems = append(problems, fmt.Sprintf("exit code %d, but the results are %v", code, r.reported))
	}
	return problems
}

// texts of results.
var (
	asBefore   = []string{"; the previous state was restored", "nothing was changed", "not started"}
	incomplete = []string{"could not restore", "the removal is incomplete"} // reported, and repaired by the next run
)

func has(text string, list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(text, s) })
}

// learn changes the model of a node by the runs since the last check. It returns the last run if it
// must have completed the change of the node.
func (n *node) learn() (complete *run) {
	runs, crashed := n.runs, n.crashed
	n.runs, n.crashed, n.rpmCrashed = nil, false, n.rpmCrashed || crashed
	if len(runs) == 0 {
		return nil
	}
	last := runs[len(runs)-1]
	alone := true // the last one started after the others had ended
	for _, r := range runs[:len(runs)-1] {
		alone = alone && r.ended.Before(last.started)
	}
	var targets []target
	for _, r := range runs {
		targets = append(targets, r.targets[n.name])
	}
	t, reported := last.targets[n.name], last.reported[n.name]
	mixed := crashed
	for _, r := range runs {
		mixed = mixed || has(r.reported[n.name].Cause, incomplete)
	}
	mixed = mixed || n.unrestored(runs[0].started)
	// What the earlier runs have left, and what the last one can have done.
	before := n.model.may
	if len(runs) > 1 {
		before = after(before, targets[:len(targets)-1])
	}
	switch {
	case alone && reported.good() && last.verb != "status":
		n.model.may = nil
		for _, s := range before {
			n.model.may = append(n.model.may, t.on(s))
		}
		n.model.may = compact(n.model.may)
		n.model.programs = (n.model.programs || len(runs) > 1 && mixed) && t.programs == ""
		n.model.settings = (n.model.settings || len(runs) > 1 && mixed) && t.settings == ""
		return last
	case len(runs) == 1 && !mixed && (has(reported.Cause, asBefore) || reported.Result == "skipped" || reported.Result == "interrupted"):
		return nil
	}
	n.model.may = after(n.model.may, targets)
	if mixed {
		for _, t := range targets {
			n.model.programs = n.model.programs || t.programs != ""
			n.model.settings = n.model.settings || t.settings != ""
		}
	}
	return nil
}

// unrestored reports whether a switch since then has reported on the node that it could not restore the
// previous state, for example because the disk was read-only. nnf-deploy may have been killed.
func (n *node) unrestored(since time.Time) bool {
	const file = "var/lib/nnf-deploy/result"
	if st, err := os.Lstat(n.path(file)); err != nil || st.ModTime().Before(since) {
		return false
	}
	f := strings.Split(n.get(file), "\t")
	return len(f) > 2 && (f[2] == "mixed" || f[2] == "partly")
}

// check checks a node on which nothing runs. It returns what is wrong.
func (g *goods) check(n *node) (problems []string) {
	complete := n.learn()
	booted := n.booted
	n.booted = false
	f := g.look(n)
	if complete != nil {
		if t := complete.targets[n.name]; t.settings != "" {
			clear(n.touched)
			f = g.look(n) // now also the modes that the administrator had changed
		}
	}
	is, problems := n.model.judge(f)
	if len(problems) == 0 && !n.model.programs && !n.model.settings {
		n.model.may = []state{is}
	}
	if complete != nil && complete.targets[n.name] != (target{}) {
		problems = append(problems, n.leftovers()...)
		if !booted && is.programs != none && !n.model.programs {
			problems = append(problems, g.running(n)...)
		}
	}
	for path, text := range n.admin {
		have := n.get(path)
		saved := strings.HasSuffix(path, "/config.toml") && n.get(path+".rpmsave") == text // rpm saves it at the removal
		if have != text && !saved {
			problems = append(problems, fmt.Sprintf("the administrator's %s is %q", path, have))
		}
		if saved && have != text {
			delete(n.admin, path)
			n.admin[path+".rpmsave"] = text
		}
	}
	if h := n.harmed(); h != "" {
		problems = append(problems, "the file of another program was changed: "+h)
	}
	for i := range problems {
		problems[i] = n.name + ": " + problems[i]
	}
	return problems
}

// leftovers returns the temporary files of a run that has ended.
func (n *node) leftovers() (list []string) {
	for path := range n.paths() {
		if !n.planted[path] && (strings.Contains(path, ".nnf-deploy-") || strings.Contains(path, "nnf-deploy/stage") || strings.HasSuffix(path, "nnf-deploy/pending")) {
			list = append(list, path+" is left after a complete run")
		}
	}
	slices.Sort(list)
	return list
}

// running returns the daemons that do not run with the installed program. nnf-dm starts with the first
// connection to its socket.
func (g *goods) running(n *node) (list []string) {
	active := func(unit string) bool { return strings.TrimSpace(n.get("run/fake/active."+unit)) == "active" }
	for _, d := range product.Daemons {
		if !active(d.Enabled()) {
			list = append(list, d.Enabled()+" does not run")
		}
		program, runs := sum([]byte(n.get("usr/bin/"+d.Name))), strings.TrimSpace(n.get("run/fake/running."+d.Service()))
		if active(d.Service()) && runs != program {
			list = append(list, fmt.Sprintf("%s runs with the program %s", d.Service(), g.sums[runs]))
		}
	}
	return list
}
