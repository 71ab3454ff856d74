package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	units "github.com/compute-daemons/compute-daemons/systemd"
)

// settings is the configuration as the daemon reads it.
type settings struct {
	*clientmount.Configuration
	loaded config.Result
	node   string // name of this node
}

type namespace struct {
	host   bool // that of process 1
	detail string
}

type credentials struct {
	client   *kube.Client
	warnings []finding
	file     string // the token file; "": the credentials come from somewhere else
	fileErr  error  // why its owner or type is wrong
}

// server is what the API server has answered.
type server struct {
	who      fact[string]
	missing  fact[[]api.Permission]
	versions [2]fact[string] // of groups
	objects  fact[[]*dws.ClientMount]
}

// groups are the API groups that the daemon uses, each with the resource that every mount needs and
// the versions that the daemon supports.
var groups = [2]struct {
	name     string
	resource kube.Resource
	known    []string
}{
	{api.GroupDWS, clientmount.Resource(""), api.VersionsDWS},
	{api.GroupNNF, kube.Resource{Group: api.GroupNNF, Plural: "nnfstorageprofiles", Kind: "NnfStorageProfile"}, api.VersionsNNF},
}

type kernel struct {
	release                     string
	deviceMapper, raid          bool
	lnet, lustre, lustreModules bool
}

type records struct {
	list       []*clientmount.Record
	unreadable []string
}

// machine is the machine on which the sources work.
type machine struct {
	Options
	node  *node.Node
	path  string // PATH
	notes *collector
	start time.Time
}

func newMachine(o Options) *machine {
	m := &machine{Options: o, notes: new(collector), start: time.Now()}
	// The PATH of a user may lack /usr/sbin.
	m.path = strings.Trim(getenv(o.Environ, "PATH")+":"+systemPath, ":")
	m.node = &node.Node{Root: o.Root, Exec: m, Log: slog.New(m.notes)}
	return m
}

// systemPath is the PATH that systemd gives to services.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// mark is the variable in the environment of the commands of this package. The next run finds
// commands by it that still hang.
const mark = "CLIENTMOUNTD_DOCTOR"

// Run runs a program in the PATH. It implements node.Runner.
func (m *machine) Run(ctx context.Context, c node.Command) (node.Result, error) {
	if len(c.Argv) > 0 {
		var err error
		if c.Program, err = m.find(c.Argv[0]); err != nil {
			return node.Result{}, err
		}
	}
	c.Env = append(slices.Clone(c.Env), mark+"=1", "PATH="+m.path)
	next := m.Exec
	if next == nil {
		next = new(node.Exec)
	}
	return next.Run(ctx, c)
}

// by returns a deadline.
func (m *machine) by(limit time.Duration) time.Time { return m.start.Add(limit) }

// within returns the time limit of a command or request that must be finished at the deadline
// everything.
func (m *machine) within(limit, reserve time.Duration) time.Duration {
	return max(min(limit, time.Until(m.by(everything))-reserve), time.Millisecond)
}

// find returns the path of a program. It ignores relative directories in PATH, which another user
// may control.
func (m *machine) find(name string) (string, error) {
	for dir := range strings.SplitSeq(m.path, ":") {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if st, err := os.Stat(m.Root + file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// systemctl is a systemd.Runner with a time limit.
func (m *machine) systemctl(ctx context.Context, name string, args ...string) (string, error) {
	res, err := m.Run(ctx, node.Command{
		Argv: append([]string{name}, args...), Env: []string{"LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat"}, Capture: 256 << 10,
	})
	return res.Stdout, err
}

// gather runs the sources.
func (m *machine) gather(ctx context.Context) *facts {
	f := &facts{now: m.start, offline: m.Offline, shipped: systemd.ParseUnit("the unit of the package", units.ClientmountdService)}
	var group sync.WaitGroup // each function sets different fields
	group.Go(func() { m.gatherNode(ctx, f) })
	m.gatherDaemon(ctx, f)
	if !m.Offline {
		group.Go(func() { m.gatherNetwork(ctx, f) })
	}
	m.gatherMounts(ctx, f)
	group.Wait()
	f.notes = m.notes.texts()
	return f
}

// gatherDaemon finds out how the daemon runs and loads its configuration.
func (m *machine) gatherDaemon(ctx context.Context, f *facts) {
	service := m.Service
	service.Machine = systemd.Machine{Root: m.Root, Run: m.systemctl, UID: service.Machine.UID, Program: service.Machine.Program}
	f.unit = source(ctx, m.by(systemdBy), func(ctx context.Context) (*systemd.Inspection, error) {
		return service.Inspect(ctx, unitProperties...)
	})()
	start, pid := systemd.Start{Environ: m.Environ}, 0
	if i := f.unit.value; i != nil && i.Status != nil && i.Status.Service.Installed {
		start, pid = i.Start, i.Status.Service.PID
	}
	loaded := source(ctx, m.by(settingsBy), func(context.Context) (*settings, error) { return m.load(start) })
	own := source(ctx, m.by(settingsBy), func(context.Context) (namespace, error) {
		host, detail, err := m.node.InHostMountNamespace()
		return namespace{host, detail}, err
	})
	if pid > 0 {
		f.daemonNamespace = source(ctx, m.by(settingsBy), func(context.Context) (namespace, error) {
			host, detail, err := m.node.IsInHostMountNamespace(pid)
			return namespace{host, detail}, err
		})()
		exe, _ := os.Readlink(m.Root + "/proc/" + strconv.Itoa(pid) + "/exe")
		f.replaced = strings.HasSuffix(exe, " (deleted)")
	}
	f.settings, f.ownNamespace = loaded(), own()
	f.credentials = source(ctx, m.by(settingsBy), func(context.Context) (*credentials, error) {
		if f.settings.err != nil {
			return nil, f.settings.err
		}
		return m.dial(f.settings.value, start)
	})()
	_, directory := m.directories(f)
	f.token = clientmount.ReadToken(directory)
	f.moverToken = source(ctx, m.by(settingsBy), func(context.Context) (*mountstate.Token, error) {
		return clientmount.ReadMoverToken(m.Root), nil
	})().value
}

// load loads the configuration as the daemon does.
func (m *machine) load(start systemd.Start) (*settings, error) {
	s := &settings{Configuration: new(clientmount.Configuration)}
	args := slices.Clone(start.Args)
	if m.Config != "" {
		args = append(args, "--config", m.Config)
	}
	if m.Directory != "" {
		args = append(args, "--runtime-directory", m.Directory)
	}
	var rest []string
	var err error
	s.loaded, rest, err = config.Load(s.Table(), config.Sources{Args: args, Environ: start.Environ})
	if err == nil && len(rest) > 0 {
		err = usage.Errorf("unexpected argument %.80q", rest[0])
	}
	if err == nil {
		err = s.Verify()
	}
	if err == nil {
		s.node, err = kube.NodeName(s.Common().Node, os.Hostname)
	}
	return s, err
}

// dial reads the credentials as the daemon does.
func (m *machine) dial(s *settings, start systemd.Start) (*credentials, error) {
	o := s.Common().Kubernetes
	warnings := new(collector)
	o.Renewal = s.Common().Renewal("clientmountd", s.node)
	o.Log, o.QPS, o.Timeout = slog.New(warnings), -1, serverLimit
	o.UserAgent = m.Service.Name + "/" + m.Service.Version + " doctor"
	o.Environ = func(name string) string { return getenv(start.Environ, name) }
	const passed = "${CREDENTIALS_DIRECTORY}" // systemd replaces it when it starts the service
	if strings.Contains(o.TokenFile, passed) && o.Environ("CREDENTIALS_DIRECTORY") == "" {
		return nil, hint.Add(errors.New("systemd passes the token only when it starts the service, which does not run"),
			"see journalctl -u %s -n 20; status=243/CREDENTIALS means that systemd cannot read or decrypt the file in LoadCredential= or LoadCredentialEncrypted=", m.Service.Name)
	}
	c := &credentials{file: o.TokenFile}
	if o.Host == "" && o.Port == "" {
		c.file = ""
	}
	var err error
	if c.client, err = kube.Dial(o); err != nil {
		return nil, err
	}
	c.warnings = warnings.findings()
	if c.file != "" {
		var info fs.FileInfo
		if info, c.fileErr = os.Stat(c.file); c.fileErr == nil {
			c.fileErr = safepath.CheckFile(c.file, info)
		}
	}
	return c, nil
}

// gatherNetwork connects to the API server and asks it what the account may do and what it has for
// this node.
func (m *machine) gatherNetwork(ctx context.Context, f *facts) {
	if f.credentials.err != nil {
		return
	}
	c := f.credentials.value.client
	f.connection = source(ctx, m.by(everything), func(ctx context.Context) (*kube.Connection, error) {
		ctx, cancel := context.WithTimeout(ctx, m.within(connectLimit, killLimit/2))
		defer cancel()
		return c.Connect(ctx), nil
	})().value
	if f.connection == nil || f.connection.Status == 0 || f.connection.Status == 401 {
		return
	}
	s, by := new(server), time.Now().Add(m.within(serverLimit, 0))
	f.server = s
	who := source(ctx, by, c.WhoAmI)
	missing := source(ctx, by, func(ctx context.Context) ([]api.Permission, error) {
		return missingPermissions(ctx, c, f.settings.value.node)
	})
	var versions [len(groups)]func() fact[string]
	for i, g := range groups {
		versions[i] = source(ctx, by, func(ctx context.Context) (string, error) { return c.Served(ctx, g.resource, g.known) })
	}
	objects := source(ctx, by, func(ctx context.Context) ([]*dws.ClientMount, error) {
		version, err := c.Served(ctx, clientmount.Resource(""), api.VersionsDWS)
		if err != nil {
			return nil, err
		}
		return kube.ListCached[dws.ClientMount](ctx, c, clientmount.Resource(version), f.settings.value.node, "")
	})
	s.who, s.missing, s.objects = who(), missing(), objects()
	for i, get := range versions {
		s.versions[i] = get()
	}
}

// missingPermissions returns the permissions that the daemon uses and the account lacks. Those for
// ClientMounts are needed in the namespace of the node only.
func missingPermissions(ctx context.Context, c *kube.Client, namespace string) (missing []api.Permission, err error) {
	used, _ := api.Permissions(api.RulesClientmountd)
	for i := range used {
		if used[i].Resource == "clientmounts" {
			used[i].Namespace = namespace
		}
	}
	allowed, err := c.Allowed(ctx, used)
	for i, ok := range allowed {
		if !ok {
			missing = append(missing, used[i])
		}
	}
	return missing, err
}

// gatherNode collects the facts that do not depend on the configuration.
func (m *machine) gatherNode(ctx context.Context, f *facts) {
	marked := source(ctx, m.by(everything), func(ctx context.Context) ([]node.Marked, error) {
		list, err := m.node.Marked(ctx, clientmount.MarkVariable)
		if err != nil {
			return list, err
		}
		own, err := m.node.Marked(ctx, mark)
		return append(list, own...), err
	})()
	f.marked = marked
	kernel := source(ctx, m.by(everything), func(context.Context) (kernel, error) { return m.kernel(), nil })
	programs := source(ctx, m.by(everything), func(context.Context) (map[string]bool, error) { return m.node.Programs(), nil })
	namespaces := source(ctx, m.by(everything), func(ctx context.Context) ([]node.Namespace, error) {
		list, err := m.node.Namespaces(ctx, m.within(commandLimit, killLimit))
		if errors.Is(err, exec.ErrNotFound) {
			return nil, nil // neither sysfs nor nvme-cli knows NVMe
		}
		return list, err
	})
	lvm := source(ctx, m.by(everything), func(ctx context.Context) (node.LVMSettings, error) {
		return m.node.LVMSettings(ctx, m.within(commandLimit, killLimit))
	})
	volumes := source(ctx, m.by(everything), func(ctx context.Context) ([]node.LV, error) {
		if err := hangingLVM(marked.value); err != nil {
			return nil, err // another command would hang as well
		}
		return m.node.AllLVs(ctx, m.within(commandLimit, killLimit))
	})
	missing := source(ctx, m.by(everything), func(context.Context) (list []string, err error) {
		for _, program := range lvmPrograms {
			if _, err := m.find(program); err != nil {
				list = append(list, program)
			}
		}
		return list, nil
	})
	f.missing = missing().value // a directory in PATH may hang
	f.kernel, f.programs, f.namespaces = kernel(), programs(), namespaces()
	f.aliases = m.aliases(f.namespaces.value)
	if f.kernel.value.lnet {
		f.nids = source(ctx, m.by(everything), func(ctx context.Context) (string, error) {
			res, err := m.Run(ctx, node.Command{Argv: []string{"lctl", "list_nids"}, Timeout: m.within(commandLimit, killLimit)})
			return res.Stdout, err
		})()
	}
	f.lvm, f.volumes = lvm(), volumes()
	if file := f.lvm.value.Get("devices/devicesfile"); file != "" {
		_, err := os.Stat(m.Root + "/etc/lvm/devices/" + file)
		f.devicesFile = err == nil
	}
}

// gatherMounts reads the records and the mounts below mount.roots.
func (m *machine) gatherMounts(ctx context.Context, f *facts) {
	roots, directory := m.directories(f)
	f.directory = directory
	mounts := source(ctx, m.by(everything), func(context.Context) (list []node.Mount, err error) {
		for _, root := range roots {
			below, err := m.node.MountsBelow(root)
			if err != nil {
				return nil, err
			}
			list = append(list, below...)
		}
		return list, nil
	})
	found := source(ctx, m.by(everything), func(context.Context) (*records, error) {
		list, unreadable, err := clientmount.ReadRecords(directory)
		return &records{list, unreadable}, err
	})
	f.mounts, f.records = mounts(), found()
}

// directories returns mount.roots and the runtime directory, or their defaults if the configuration
// cannot be loaded.
func (m *machine) directories(f *facts) (roots []string, runtime string) {
	if s := f.settings.value; f.settings.err == nil {
		return s.Controller.Plan.Roots, cmp.Or(m.Directory, s.RuntimeDirectory)
	}
	table := new(clientmount.Configuration).Table()
	return strings.Split(safepath.DefaultMountRoots, ","), cmp.Or(m.Directory, table.Lookup("daemon.runtime_directory").Default)
}

// lvmPrograms are the programs that mounts of block devices need.
var lvmPrograms = []string{"lvs", "vgs", "lvchange", "vgchange", "dmsetup"}

// hangingLVM returns an error if an LVM tool hangs that the daemon or an earlier run has started.
func hangingLVM(marked []node.Marked) error {
	for _, p := range marked {
		if p.Kernel && p.Age > hangAge && slices.Contains(lvmPrograms, p.Program) {
			return hangError{p.Program, p.PID}
		}
	}
	return nil
}

func (m *machine) kernel() (k kernel) {
	exists := func(path string) bool { _, err := os.Stat(m.Root + path); return err == nil }
	read := func(path string) string { data, _ := os.ReadFile(m.Root + path); return string(data) }
	k.release = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	k.deviceMapper = strings.Contains(read("/proc/misc"), " device-mapper\n") || strings.Contains(read("/proc/devices"), " device-mapper\n")
	k.raid, k.lnet, k.lustre = exists("/sys/module/dm_raid"), exists("/sys/module/lnet"), exists("/sys/module/lustre")
	k.lustreModules = k.lustre || k.release != "" && strings.Contains(read("/lib/modules/"+k.release+"/modules.dep"), "/lustre.ko")
	return k
}

// aliases returns the links to the devices of the namespaces, which filters of LVM may contain.
func (m *machine) aliases(list []node.Namespace) map[string][]string {
	links, _ := filepath.Glob(m.Root + "/dev/disk/by-*/*")
	names := map[string][]string{}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		device := "/dev/" + filepath.Base(target)
		if slices.ContainsFunc(list, func(n node.Namespace) bool { return n.Device == device }) {
			names[device] = append(names[device], strings.TrimPrefix(link, m.Root))
		}
	}
	return names
}

// collector is a slog.Handler that keeps warnings and errors.
type collector struct {
	mu   sync.Mutex
	list []finding
}

const maxWarnings = 20

func (c *collector) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (c *collector) WithAttrs([]slog.Attr) slog.Handler               { return c }
func (c *collector) WithGroup(string) slog.Handler                    { return c }

func (c *collector) Handle(_ context.Context, r slog.Record) error {
	hint, details := "", ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "hint" {
			hint = a.Value.String()
		} else {
			details += cmp.Or(strings.Repeat(", ", min(1, len(details))), "") + a.Key + " " + a.Value.String()
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) < maxWarnings {
		text := r.Message
		if details != "" {
			text += " (" + details + ")"
		}
		c.list = append(c.list, warn(hint, "%s", text))
	}
	return nil
}

func (c *collector) findings() []finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

func (c *collector) texts() (list []string) {
	for _, one := range c.findings() {
		list = append(list, one.text)
	}
	return list
}
