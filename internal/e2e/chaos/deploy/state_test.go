package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// state is what nnf-deploy has installed on a node: the programs with their units, and the settings with
// the credentials.
type state struct {
	programs string // the release and how it was installed, for example a/rpm; none
	settings string // the version; none
}

const none = "none"

// target is the state that a run installs. An empty field is not changed.
type target state

func (t target) on(s state) state {
	if t.programs != "" {
		s.programs = t.programs
	}
	if t.settings != "" {
		s.settings = t.settings
	}
	return s
}

// model is what the state of a node may be. After a crash, the files of a node can have different states
// until a later run has completed the change.
type model struct {
	may      []state
	programs bool // the programs may be mixed
	settings bool // the settings may be mixed
}

func newModel() model { return model{may: []state{{none, none}}} }

// after returns the states that may be there after some of the runs, in any order.
func after(may []state, runs []target) []state {
	all := slices.Clone(may)
	for i, t := range runs {
		rest := slices.Concat(runs[:i], runs[i+1:])
		var next []state
		for _, s := range may {
			next = append(next, t.on(s))
		}
		all = append(all, after(next, rest)...)
	}
	return compact(all)
}

func compact(all []state) (list []state) {
	for _, s := range all {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// found is what is on a node: the state of each file, by path.
type found struct {
	programs map[string]string
	settings map[string]string
	damaged  []string // files with wrong contents, mode or owner
}

var releaseLine = regexp.MustCompile(`(?m)^# release (\S+)$`)

// look examines the files of a node.
func (g *goods) look(n *node) found {
	f := found{programs: map[string]string{}, settings: map[string]string{}}
	for name, versions := range n.packages() {
		f.programs[packageOf(name)] = versions + "/rpm"
	}
	for _, d := range product.Daemons {
		for _, name := range d.Programs() {
			path := strings.TrimPrefix(product.Path(name), "/")
			if data := n.get(path); data != "" {
				f.programs[path] = g.sums[sum([]byte(data))]
				f.check(n, path, f.programs[path] != "", "-rwxr-xr-x", 0, 0)
			}
		}
		units := d.Units()
		if d.Timer() != "" {
			units = append(units, d.Timer())
		}
		for _, unit := range units {
			for how, dir := range map[string]string{"rpm": product.PackageDirectory, "bin": product.UnitDirectory} {
				path := strings.TrimPrefix(dir, "/") + "/" + unit
				m := releaseLine.FindStringSubmatch(n.get(path))
				switch {
				case m != nil:
					f.programs[path] = m[1] + "/" + how
				case exists(n.path(path)) && unit == d.Timer():
					f.settings[path] = own
				case exists(n.path(path)):
					f.damaged = append(f.damaged, path)
				}
			}
		}
		group := 0
		if d.Owner != "root:root" {
			group = account
		}
		mode := "-rw-------"
		if group != 0 {
			mode = "-rw-r-----"
		}
		token, cert := product.Credentials(d.Name)
		for path, read := range map[string]func(string) string{token: tokenVersion, cert: certVersion} {
			path = strings.TrimPrefix(path, "/")
			if text := n.get(path); text != "" {
				version := read(text)
				f.settings[path] = version
				f.check(n, path, slices.Contains(g.credentialTexts(n.name, version, d.Name), text), mode, 0, group)
			} else if exists(n.path(path)) && !n.planted[path] {
				f.damaged = append(f.damaged, path+" is empty or no file")
			}
		}
		if path := strings.TrimPrefix(d.Settings(), "/"); n.get(path) != "" {
			_, host, _ := strings.Cut(n.get(path), `service_host = "`)
			f.settings[path], _, _ = strings.Cut(host, ".")
			f.check(n, path, strings.Contains(n.get(path), `"`+n.name+`"`), "-rw-r--r--", 0, 0)
		}
		if path := strings.TrimPrefix(d.DropIn(), "/"); n.get(path) != "" {
			text, version, mode := n.get(path), "?", "-rw-r--r--"
			switch {
			case strings.Contains(text, "release-a") && strings.Contains(text, secretMark):
				version, mode = "a", "-rw-------"
			case strings.Contains(text, "release-b"):
				version = "b"
			}
			f.settings[path] = version
			f.check(n, path, version != "?", mode, 0, 0)
		}
		if path := strings.TrimPrefix(d.TimerRecord(), "/"); d.Timer() != "" && exists(n.path(path)) {
			f.settings[path] = own
		}
	}
	return f
}

// packageOf returns the name of a package among the paths of a state.
func packageOf(daemon string) string { return "package " + daemon }

// packages returns the versions of the installed packages in the database of rpm.
func (n *node) packages() map[string]string {
	versions := map[string]string{}
	out, _ := n.command("rpm", append([]string{"-q", "--qf", "%{NAME} %{VERSION}\n"}, product.Names()...)...).Output() // it fails if one is missing
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 {
			versions[f[0]] += f[1]
		}
	}
	return versions
}

func tokenVersion(text string) string {
	_, after, _ := strings.Cut(text, secretMark)
	version, _, _ := strings.Cut(after, "-")
	return version
}

func certVersion(text string) string {
	f := strings.Fields(text)
	if len(f) < 2 {
		return "?"
	}
	return f[1]
}

// credentialTexts returns the contents of the credential files of a version.
func (g *goods) credentialTexts(node, version, daemon string) (texts []string) {
	dir := version
	if version == own {
		dir = own + "-" + node
	}
	for _, name := range []string{product.TokenFile, product.CertFile} {
		data, _ := os.ReadFile(filepath.Join(g.dir, "credentials-"+dir, daemon, name)) // an unknown version has none
		texts = append(texts, string(data))
	}
	return texts
}

// check records a file with wrong contents, mode or owner, except if the administrator has changed it.
func (f *found) check(n *node, path string, right bool, mode string, uid, gid int) {
	st, err := os.Lstat(n.path(path))
	if err != nil {
		return
	}
	sys := st.Sys().(*syscall.Stat_t)
	if !right {
		f.damaged = append(f.damaged, path+" has wrong contents")
	}
	if !n.touched[path] && (st.Mode().String() != mode || int(sys.Uid) != uid || int(sys.Gid) != gid) {
		f.damaged = append(f.damaged, fmt.Sprintf("%s has the mode %v and the owner %d:%d", path, st.Mode(), sys.Uid, sys.Gid))
	}
}

// wants returns the files of a state.
func wants(s state) (programs, settings map[string]string) {
	programs, settings = map[string]string{}, map[string]string{}
	release, how, _ := strings.Cut(s.programs, "/")
	trim := func(path string) string { return strings.TrimPrefix(path, "/") }
	for _, d := range product.Daemons {
		if s.programs != none {
			for _, name := range d.Programs() {
				programs[trim(product.Path(name))] = release
			}
			dir, units := product.UnitDirectory, d.Units()
			if how == "rpm" {
				dir = product.PackageDirectory
				programs[packageOf(d.Name)] = s.programs
				if d.Timer() != "" {
					units = append(units, d.Timer())
				}
			}
			for _, unit := range units {
				programs[trim(dir)+"/"+unit] = s.programs
			}
		}
		if s.settings == none {
			continue
		}
		token, cert := product.Credentials(d.Name)
		for _, path := range []string{token, cert, d.Settings()} {
			settings[trim(path)] = s.settings
		}
		if s.settings == "a" || s.settings == "b" {
			settings[trim(d.DropIn())] = s.settings
		}
		if s.settings == own && d.Timer() != "" {
			settings[trim(d.TimerRecord())] = own
			if how == "bin" {
				settings[trim(d.OwnTimer())] = own
			}
		}
	}
	return programs, settings
}

// differences returns how the files differ from those of a state.
func differences(have, want map[string]string) (list []string) {
	for path, w := range want {
		if h := have[path]; h != w {
			if h == "" {
				h = "missing"
			}
			list = append(list, path+" is "+h+", not "+w)
		}
	}
	for path, h := range have {
		if want[path] == "" {
			list = append(list, path+" is "+h+", and must not exist")
		}
	}
	slices.Sort(list)
	return list
}

// judge checks what was found against the model, and returns the state. The problems are those of the
// state that is most similar.
func (m *model) judge(f found) (is state, problems []string) {
	best := -1
	for _, s := range m.may {
		programs, settings := wants(s)
		var list []string
		if !m.programs {
			list = append(list, differences(f.programs, programs)...)
		}
		if !m.settings {
			list = append(list, differences(f.settings, settings)...)
		}
		if best < 0 || len(list) < best {
			best, is, problems = len(list), s, list
		}
	}
	return is, append(problems, f.damaged...)
}
