package doctor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// readLimit bounds what is read of one file, in bytes. Secrets are removed before the text is cut.
const readLimit = 8 << 20

// journalLines is the number of journal records in a bundle.
const journalLines = 2000

// commands are the commands whose output is in a bundle. None of them touches a mount: lsblk does not
// ask file systems about their size, because no such column is selected.
var commands = []struct {
	name string
	lvm  bool // not run while an LVM tool hangs
	argv []string
}{
	{"journal.txt", false, []string{"journalctl", "-q", "--no-pager", "-o", "short-iso-precise", "-n", strconv.Itoa(journalLines), "-u", "clientmountd"}},
	{"kernel.txt", false, []string{"journalctl", "-q", "--no-pager", "-o", "short-iso-precise", "-n", "500", "-b", "-k"}},
	{"systemd.txt", false, []string{"systemctl", "--version"}},
	{"lsblk.txt", false, []string{"lsblk", "-a", "-o", "NAME,KNAME,MAJ:MIN,TYPE,SIZE,RO,FSTYPE,STATE,MOUNTPOINT"}},
	{"nvme-list.txt", false, []string{"nvme", "list"}},
	{"nvme-subsystems.txt", false, []string{"nvme", "list-subsys"}},
	{"lvm-version.txt", false, []string{"lvm", "version"}},
	{"lvm-config.txt", false, []string{"lvmconfig", "--typeconfig", "diff"}},
	{"pvs.txt", true, []string{"pvs", "--nolock", "-a"}},
	{"vgs.txt", true, []string{"vgs", "--nolock"}},
	{"lvs.txt", true, []string{"lvs", "--nolock", "-a", "-o", "+devices"}},
	{"dmsetup.txt", false, []string{"dmsetup", "info", "-c"}},
	{"dlm.txt", false, []string{"dlm_tool", "ls", "-n"}},
	{"lustre.txt", false, []string{"lctl", "list_nids"}},
}

// files are files that are in a bundle as they are.
var files = []string{"/etc/os-release", "/proc/version", "/proc/uptime", "/proc/self/mountinfo", "/proc/misc", "/proc/modules"}

// collect returns the contents of a bundle, without secrets. It takes at most bundleLimit.
func (m *machine) collect(ctx context.Context, f *facts, list []checklist.Check) []part {
	by := time.Now().Add(bundleLimit)
	clean := m.redactor(ctx, by, f)
	var all []part
	add := func(name, text, note string) { all = append(all, part{name, clean.text(text), note}) }

	var b bytes.Buffer
	_ = checklist.Checks(&b, list)
	add("doctor.txt", b.String(), "")
	add("doctor.json", document(clean, checklist.NewDocument(m.Service.Name, list)), "")
	waiting := m.addState(ctx, by, f, clean, add)
	add("version.txt", m.Service.Name+" "+m.Service.Version+"\n", "")
	m.addDaemon(f, clean, add)

	for _, c := range commands {
		if c.lvm && hangingLVM(f.marked.value) != nil {
			add(c.name, "", "not run: "+hangingLVM(f.marked.value).Error())
			continue
		}
		get := source(ctx, by, func(ctx context.Context) (node.Result, error) {
			return m.Run(ctx, node.Command{Argv: c.argv, Timeout: commandLimit, Capture: maxPart})
		})
		waiting = append(waiting, func() {
			out := get()
			text, note := "$ "+node.Command{Argv: c.argv}.String()+"\n"+wholeLines(out.value.Stdout+out.value.Stderr), ""
			if out.err != nil {
				note = "failed: " + errText(out.err)
			}
			add(c.name, text, note)
		})
	}
	for _, file := range files {
		get := source(ctx, by, func(context.Context) (string, error) { return m.read(file) })
		waiting = append(waiting, func() {
			out := get()
			add(strings.TrimPrefix(file, "/"), out.value, noteOf(out.err))
		})
	}
	for _, p := range f.marked.value {
		if p.Kernel {
			waiting = append(waiting, m.addProcess(ctx, by, p, add)...)
		}
	}
	for _, wait := range waiting {
		wait()
	}
	m.addRecords(f, clean, add)
	return all
}

// addState adds the documents of the sub-commands mounts, health and timeline.
func (m *machine) addState(ctx context.Context, by time.Time, f *facts, clean *redactor, add func(name, text, note string)) []func() {
	mounts := source(ctx, by, func(context.Context) (*mountstate.Mounts, error) { return clientmount.ReadMounts(f.directory, m.node) })
	timeline := source(ctx, by, func(context.Context) (*mountstate.Timeline, error) { return clientmount.ReadTimeline(f.directory) })
	return []func(){
		func() {
			found := mounts()
			if found.err != nil {
				add("mounts.json", "", noteOf(found.err))
				return
			}
			add("mounts.json", document(clean, found.value), "")
			add("health.json", document(clean, mountstate.Evaluate(found.value, mountstate.DefaultGrace(), found.value.Time)), "")
		},
		func() {
			found := timeline()
			if found.err != nil {
				add("timeline.json", "", noteOf(found.err))
				return
			}
			note := latest(found.value)
			add("timeline.json", document(clean, found.value), note)
		},
	}
}

// latest removes the oldest lives of a timeline that is longer than a part may be, so that it remains
// a JSON document, and returns a note about them.
func latest(t *mountstate.Timeline) (note string) {
	const indent = 4            // of a life, in bytes
	left := maxPart - maxPart/8 // what replaces a secret may be longer than the secret
	for i := len(t.Lives) - 1; i >= 0; i-- {
		var b bytes.Buffer
		_ = text.JSON(&b, t.Lives[i])
		if left -= b.Len() + indent*bytes.Count(b.Bytes(), []byte("\n")); left < 0 {
			note = fmt.Sprintf("truncated: without the oldest %d of %d ClientMounts", i+1, len(t.Lives))
			t.Lives = t.Lives[i+1:]
			break
		}
	}
	return note
}

// addDaemon adds what systemd and the configuration have.
func (m *machine) addDaemon(f *facts, clean *redactor, add func(name, text, note string)) {
	var b bytes.Buffer
	if i := f.unit.value; i != nil && i.Status != nil {
		add("status.json", document(clean, i.Status), noteOf(f.unit.err))
		add("unit.txt", clean.unit(i.Files, i.Directives), "")
		for _, name := range slices.Sorted(slices.Values(unitProperties)) {
			if value := i.Properties[name]; value != "" && name != "Environment" {
				fmt.Fprintf(&b, "%s=%s\n", name, value)
			}
		}
		add("unit-properties.txt", b.String(), "")
	} else {
		add("unit.txt", "", noteOf(f.unit.err))
	}
	b.Reset()
	if s := f.settings.value; f.settings.err == nil {
		_ = config.Dump(&b, s.Table(), s.loaded)
	}
	add("config.txt", b.String(), noteOf(f.settings.err))
}

// addRecords adds the records of mounts, and the errors of those that cannot be read.
func (m *machine) addRecords(f *facts, clean *redactor, add func(name, text, note string)) {
	r := f.records.value
	if r == nil {
		add("records/", "", noteOf(f.records.err))
		return
	}
	for _, one := range r.list {
		add("records/"+one.UID+".json", document(clean, one), "")
	}
	if len(r.unreadable) > 0 {
		add("records/unreadable.txt", strings.Join(r.unreadable, "\n")+"\n", "")
	}
}

// addProcess adds where a hanging command waits in the kernel. Its environment is not read.
func (m *machine) addProcess(ctx context.Context, by time.Time, p node.Marked, add func(name, text, note string)) (waiting []func()) {
	dir := "/proc/" + strconv.Itoa(p.PID)
	add(dir[1:]+"/line", fmt.Sprintf("%s\nrunning for %v, killed %v\n", p.Line, p.Age, p.Killed), "")
	for _, name := range []string{"stack", "status", "wchan"} {
		file := dir + "/" + name
		get := source(ctx, by, func(context.Context) (string, error) { return m.read(file) })
		waiting = append(waiting, func() {
			out := get()
			add(file[1:], out.value, noteOf(out.err))
		})
	}
	return waiting
}

// read returns the content of a file of the system.
func (m *machine) read(file string) (string, error) {
	f, err := os.OpenFile(filepath.Clean(m.Root+file), os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, readLimit))
	return strings.ToValidUTF8(string(data), "?"), err
}

// redactor returns the redactor for the secrets of the daemon.
func (m *machine) redactor(ctx context.Context, by time.Time, f *facts) *redactor {
	secrets := source(ctx, by, func(context.Context) ([]string, error) { // reads files
		list := m.tokens(f)
		if f.credentials.err == nil {
			list = append(list, f.credentials.value.client.Secrets()...)
		}
		return list, nil
	})
	environ := slices.Clone(m.Environ)
	if i := f.unit.value; i != nil {
		environ = append(environ, i.Start.Environ...)
		for _, d := range i.Directives {
			if d.Key == "Environment" {
				environ = append(environ, splitWords(d.Value)...)
			}
		}
	}
	return newRedactor(secrets().value, environ, new(clientmount.Configuration).Table())
}

// tokens returns the content of the token file, even if it cannot be used.
func (m *machine) tokens(f *facts) []string {
	if f.settings.value == nil || f.settings.value.Configuration == nil {
		return nil
	}
	file := f.settings.value.Common().Kubernetes.TokenFile
	st, err := os.Stat(file)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxPart {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return []string{strings.TrimSpace(string(data))}
}

func noteOf(err error) string {
	if err == nil {
		return ""
	}
	return "failed: " + errText(err)
}

// errText returns the reason of a failure, without the output of a command.
func errText(err error) string {
	if c, ok := err.(*node.CommandError); ok {
		return c.Err.Error()
	}
	if p, ok := err.(*fs.PathError); ok {
		return p.Err.Error()
	}
	return text.Clip(oneLine(err), 500)
}

// leftOut matches the note that node.Exec puts into long output, and the incomplete lines around it.
var leftOut = regexp.MustCompile(`[^\n]*\n(… \d+ bytes left out …\n)[^\n]*(?:\n|$)`)

// wholeLines removes the incomplete lines of long output: a part of a secret may not be recognized.
func wholeLines(s string) string { return leftOut.ReplaceAllString(s, "$1") }
