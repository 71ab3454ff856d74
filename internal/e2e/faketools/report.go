package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
)

// row is a line of a report, by column name.
type row map[string]string

var (
	lvColumns = []string{"lv_name", "vg_name", "lv_attr", "lv_size", "lv_full_name", "lv_path", "lv_dm_path", "lv_active", "lv_uuid"}
	vgColumns = []string{"vg_name", "vg_attr", "vg_size", "vg_lock_type", "vg_shared", "lv_count", "vg_uuid"}
)

// lvs lists logical volumes like lvs(8), with --nolock, --reportformat json, -o, -v,
// --select, and volume groups or VG/LV as arguments.
func (t *toolbox) lvs() int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	var rows []row
	for _, v := range s.Volumes {
		if !s.Visible(v, t.now()) {
			continue
		}
		rows = append(rows, lvRow(v))
	}
	return t.report("lv", lvColumns, rows)
}

func lvRow(v *record.Volume) row {
	attr, active := "-wi-------", ""
	if v.Active {
		attr, active = "-wi-a-----", "active"
	}
	return row{
		"lv_name": v.LV, "vg_name": v.VG, "lv_attr": attr, "lv_size": "320.00m", "lv_full_name": v.VG + "/" + v.LV,
		"lv_path": "/dev/" + v.VG + "/" + v.LV, "lv_dm_path": v.Node, "lv_active": active, "lv_uuid": "",
	}
}

// vgs lists volume groups.
func (t *toolbox) vgs() int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	var rows []row
	for _, v := range s.Volumes {
		if !s.Visible(v, t.now()) || slices.ContainsFunc(rows, func(r row) bool { return r["vg_name"] == v.VG }) {
			continue
		}
		r := row{"vg_name": v.VG, "vg_attr": "wz--n-", "vg_size": "1.00g", "vg_lock_type": "none", "lv_count": "1", "vg_uuid": "", "vg_shared": ""}
		if v.Shared {
			r["vg_attr"], r["vg_lock_type"], r["vg_shared"] = "wz--ns", "dlm", "shared"
		}
		rows = append(rows, r)
	}
	return t.report("vg", vgColumns, rows)
}

// reportWriter returns the writer for reports: the descriptor in LVM_REPORT_FD, or
// standard output.
func reportWriter(stdout io.Writer) (io.Writer, error) {
	name := os.Getenv("LVM_REPORT_FD")
	if name == "" {
		return stdout, nil
	}
	fd, err := strconv.Atoi(name)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	}
	if err != nil {
		//lint:ignore ST1005 the message of LVM
		return nil, fmt.Errorf("Failed to open stream for file descriptor %s.", name)
	}
	return descriptor(fd), nil
}

// descriptor writes to an open file descriptor and does not close it.
type descriptor int

func (d descriptor) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := unix.Write(int(d), p[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// report prints rows in the JSON format of LVM, or as text without --reportformat.
func (t *toolbox) report(kind string, columns []string, rows []row) int {
	to, err := reportWriter(t.stdout)
	if err != nil {
		return t.fail(4, "  %v", err)
	}
	opts, positional := options(t.args, "-o", "--options", "-S", "--select", "--reportformat", "--units", "--config", "--separator", "-O", "--sort")
	wanted := columns[:3]
	if o, ok := first(opts, "-o", "--options"); ok && o != "all" && o != kind+"_all" {
		wanted = strings.Split(o, ",")
		for _, c := range wanted {
			if !slices.Contains(columns, c) {
				return t.fail(3, "  Unrecognised field: %s", c)
			}
		}
	} else if ok {
		wanted = columns
	}
	if sel, ok := first(opts, "-S", "--select"); ok {
		keep, err := parseSelect(sel, columns)
		if err != nil {
			return t.fail(3, "  %v", err)
		}
		rows = slices.DeleteFunc(rows, func(r row) bool { return !keep(r) })
	}
	code := 0
	if len(positional) > 0 {
		rows, code = t.named(rows, positional)
	}
	if f := opts["--reportformat"]; f != "json" && f != "json_std" {
		for _, r := range rows {
			line := ""
			for _, c := range wanted {
				line += " " + r[c]
			}
			fmt.Fprintln(to, " "+line)
		}
		return code
	}
	list := []row{}
	for _, r := range rows {
		out := row{}
		for _, c := range wanted {
			out[c] = r[c]
		}
		list = append(list, out)
	}
	data, err := json.MarshalIndent(map[string]any{"report": []any{map[string]any{kind: list}}}, "  ", "    ")
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	fmt.Fprintf(to, "  %s\n", data)
	return code
}

// named returns the rows that match the positional arguments. An argument without a
// match is an error, but the other rows are listed.
func (t *toolbox) named(rows []row, names []string) (kept []row, code int) {
	for _, n := range names {
		vg, lv, hasLV := strings.Cut(strings.TrimPrefix(n, "/dev/"), "/")
		found, knownVG := false, false
		for _, r := range rows {
			if r["vg_name"] != vg {
				continue
			}
			knownVG = true
			if !hasLV || r["lv_name"] == lv {
				kept, found = append(kept, r), true
			}
		}
		switch {
		case !knownVG:
			code = t.fail(5, "  Volume group \"%s\" not found\n  Cannot process volume group %s", vg, vg)
		case !found:
			code = t.fail(5, "  Failed to find logical volume \"%s/%s\"", vg, lv)
		}
	}
	return kept, code
}

// parseSelect parses a subset of the selection language of LVM: field=value, joined by
// && or commas, values with or without quotes.
func parseSelect(text string, columns []string) (func(row) bool, error) {
	want := row{}
	for _, term := range strings.FieldsFunc(strings.ReplaceAll(text, "&&", ","), func(r rune) bool { return r == ',' }) {
		k, v, ok := strings.Cut(term, "=")
		k, v = strings.TrimSpace(k), strings.Trim(strings.TrimSpace(v), `"'`)
		if !ok || !slices.Contains(columns, k) {
			//lint:ignore ST1005 the message of LVM
			return nil, fmt.Errorf("Selection syntax error at '%s'.", text)
		}
		want[k] = v
	}
	return func(r row) bool {
		for k, v := range want {
			if r[k] != v {
				return false
			}
		}
		return true
	}, nil
}

// options splits arguments into options and positional arguments. Options in withValue
// take a value: --name value, --name=value, -n value or -nvalue. Options may be
// anywhere, as for the LVM tools.
func options(args []string, withValue ...string) (opts map[string]string, positional []string) {
	takes := map[string]bool{}
	for _, n := range withValue {
		takes[n] = true
	}
	opts = map[string]string{}
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, value, has := strings.Cut(a, "=")
		switch {
		case a == "--":
			return opts, append(positional, args[i+1:]...)
		case strings.HasPrefix(a, "--"):
			if takes[name] && !has && i+1 < len(args) {
				i++
				value = args[i]
			}
			opts[name] = value
		case len(a) > 1 && a[0] == '-':
			short := a[:2]
			switch {
			case !takes[short]:
				for _, c := range a[1:] {
					opts["-"+string(c)] = ""
				}
			case len(a) > 2:
				opts[short] = a[2:]
			case i+1 < len(args):
				i++
				opts[short] = args[i]
			}
		default:
			positional = append(positional, a)
		}
	}
	return opts, positional
}

// first returns the value of the first option that is set.
func first(opts map[string]string, names ...string) (string, bool) {
	for _, n := range names {
		if v, ok := opts[n]; ok {
			return v, true
		}
	}
	return "", false
}

// nvme supports nvme list -v --output-format=json, in the layout of nvme-cli 1.x or 2.x,
// and nvme ns-rescan.
func (t *toolbox) nvme() int {
	opts, words := options(t.args, "-o", "--output-format")
	if len(words) == 0 {
		return t.fail(1, "nvme: no command")
	}
	switch words[0] {
	case "ns-rescan":
		return t.rescan()
	case "list":
		if format, _ := first(opts, "-o", "--output-format"); format != "json" {
			return t.fail(1, "faketools: nvme list without JSON is not supported")
		}
		return t.nvmeList()
	}
	return t.fail(1, "ERROR: Invalid sub-command '%s' for global nvme", words[0])
}

// rescan makes missing namespaces appear, each after its delay.
func (t *toolbox) rescan() int {
	err := t.dir.Update(func(s *record.State) error {
		for _, n := range s.Namespaces {
			if n.NeedsRescan {
				n.NeedsRescan, n.Appears = false, t.now().Add(n.Late)
			}
		}
		return nil
	})
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	return 0
}

type object = map[string]any

func (t *toolbox) nvmeList() int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	var nqns []string
	for _, n := range s.Namespaces {
		if !slices.Contains(nqns, n.NQN) {
			nqns = append(nqns, n.NQN)
		}
	}
	subsystems := []object{}
	for i, nqn := range nqns {
		spaces := []object{}
		for _, n := range s.Namespaces {
			if n.NQN == nqn && n.Present(t.now()) {
				spaces = append(spaces, object{"NameSpace": fmt.Sprintf("nvme%dn%d", i, n.NSID), "NSID": n.NSID, "SectorSize": 512})
			}
		}
		controller := object{"Controller": fmt.Sprintf("nvme%d", i), "SerialNumber": "faketools", "Transport": "pcie", "Namespaces": spaces}
		sub := object{"Subsystem": fmt.Sprintf("nvme-subsys%d", i), "SubsystemNQN": nqn, "Namespaces": []object{}}
		if s.NVMeLayout != 1 {
			// With native multipath, the default, 2.x lists the namespaces of the
			// subsystem, not of its controllers.
			controller["Namespaces"], sub["Namespaces"] = []object{}, spaces
			controller["Paths"] = []object{}
		}
		sub["Controllers"] = []object{controller}
		subsystems = append(subsystems, sub)
	}
	devices := subsystems
	if s.NVMeLayout != 1 {
		devices = []object{{"HostNQN": "nqn.2014-08.org.nvmexpress:uuid:faketools", "HostID": "faketools", "Subsystems": subsystems}}
	}
	data, err := json.MarshalIndent(object{"Devices": devices}, "", "  ")
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	fmt.Fprintf(t.stdout, "%s\n", data)
	return 0
}

// dlmTool supports dlm_tool ls: a paragraph for each started lockspace.
func (t *toolbox) dlmTool() int {
	s, err := t.dir.Load()
	if err != nil {
		return t.fail(125, "faketools: %v", err)
	}
	fmt.Fprintln(t.stdout, "dlm lockspaces")
	for i, vg := range s.Locks {
		fmt.Fprintf(t.stdout, "name          lvm_%s\nid            0x%08x\nflags         0x00000000\nmembers       1\n\n", vg, i+1)
	}
	return 0
}
