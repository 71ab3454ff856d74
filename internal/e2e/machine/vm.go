package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// VMTools are the programs that VM needs.
var VMTools = []string{"qemu-system-x86_64", "cpio"}

// AccelVar is the environment variable with the accelerator of the emulator, for example
// "kvm". The existence of /dev/kvm is not enough to choose it, because some of these devices
// do not boot distribution kernels.
const (
	AccelVar     = "E2E_ACCEL"
	defaultAccel = "tcg,thread=multi,tb-size=512"
)

// VMOptions describe the hardware of a virtual machine.
type VMOptions struct {
	Attached int // number of attached NVMe namespaces of 1 GiB, numbered from 1
	Detached int // number of further namespaces that are not attached to its controllers

	Newer bool // it has NewerRepository
}

// NVMeSerial is the serial number of both NVMe controllers, which belong to one
// subsystem.
const NVMeSerial = "E2ESERIAL0"

// VM boots a virtual machine. It runs until the lab is closed, so that several tests can share
// it; each of them calls For.
func VM(t testing.TB, o VMOptions) *Machine {
	t.Helper()
	Need(t)
	started := time.Now()
	s := fixture.New(t)
	m := &Machine{Name: s.Node, Fixture: s, t: t, slow: 6, boot: 4 * time.Minute, done: make(chan struct{})}
	dir := filepath.Join(s.Dir, fmt.Sprintf("vm-%d", machines.Add(1)))
	m.console = filepath.Join(dir, "console")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The packages are in the ram disk, below /run/e2e, because this is faster than the port.
	files := map[string]string{}
	for _, p := range Packages(t) {
		files["rpm/"+filepath.Base(p)] = p
	}
	if o.Newer {
		for name, p := range newerRepository(t, dir) {
			files["newer/"+name] = p
		}
	}
	if err := m.startVM(dir, o, files); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), m.boot)
	defer cancel()
	var err error
	if m.link, err = dial(ctx, filepath.Join(dir, "agent")); err == nil {
		err = m.link.awaitBoot(ctx, 1)
	}
	if err != nil {
		t.Fatalf("the virtual machine did not boot: %v\n%s", err, m.tail())
	}
	m.settle()
	t.Logf("booted in %.1f s", time.Since(started).Seconds())
	return m
}

func (m *Machine) startVM(dir string, o VMOptions, files map[string]string) error {
	l := m.Fixture.Lab
	g, err := newGuest(l, "/run/e2e/agent", "/dev/virtio-ports/e2e")
	if err != nil {
		return err
	}
	g.network(m.Fixture.Cluster.Address())
	g.files = files
	initrd := filepath.Join(dir, "initrd")
	if err := g.initrd(initrd, filepath.Join(cache, "initrd.cpio")); err != nil {
		return fmt.Errorf("initial ram disk: %w", err)
	}
	args, err := o.arguments(dir, initrd)
	if err != nil {
		return err
	}
	output, err := os.Create(m.console + ".emulator")
	if err != nil {
		return err
	}
	ctx, kill := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // for the writes to the root disk
	go func() {
		defer close(m.done)
		defer output.Close()
		if err := l.Run(cmd); err != nil && ctx.Err() == nil {
			fmt.Fprintln(output, "qemu:", err)
		}
	}()
	m.monitor = func(command string) error { return monitor(filepath.Join(dir, "monitor"), command) }
	m.stop = func() {
		kill()
		<-m.done
	}
	return nil
}

// initrd appends an archive with the files of the test to the ram disk. The kernel unpacks it
// over the first one.
func (g *guest) initrd(path, base string) error {
	tree := path + ".tree"
	if err := g.write(filepath.Join(tree, "guest/systemd/system"), filepath.Join(tree, "guest/e2e/agent")); err != nil {
		return err
	}
	for name, from := range g.files {
		if err := copyFile(from, filepath.Join(tree, "guest/e2e", name)); err != nil {
			return err
		}
	}
	cmd := exec.Command("/bin/sh", "-c", "find . | cpio -o -H newc --quiet")
	cmd.Dir = tree
	archive, err := cmd.Output()
	if err != nil {
		return err
	}
	first, err := os.ReadFile(base)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path, append(first, archive...), 0o600), os.RemoveAll(tree))
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o644))
}

// arguments returns the arguments of the emulator, and creates the disks of the namespaces.
func (o VMOptions) arguments(dir, initrd string) ([]string, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	accel := os.Getenv(AccelVar)
	if accel == "" {
		accel = defaultAccel
	}
	args := []string{
		"-M", "q35", "-cpu", "max", "-smp", "2", "-m", "2048", "-accel", accel,
		"-nodefaults", "-display", "none", "-serial", "file:" + in("console"),
		"-monitor", "unix:" + in("monitor") + ",server=on,wait=off",
		"-kernel", filepath.Join(cache, "vmlinuz"), "-initrd", initrd,
		"-append", "console=ttyS0 quiet systemd.show_status=0 panic=-1 net.ifnames=0", // the network card keeps its name
		"-drive", "file=" + filepath.Join(cache, "root.ext4") + ",format=raw,if=none,id=root,snapshot=on,cache=unsafe",
		"-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
		"-chardev", "socket,path=" + in("agent") + ",server=on,wait=off,id=agent",
		"-device", "virtserialport,chardev=agent,name=e2e",
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0",
		"-device", "nvme-subsys,id=sub0,nqn=e2e",
		"-device", "nvme,id=nvme0,serial=" + NVMeSerial + ",subsys=sub0",
		"-device", "nvme,id=nvme1,serial=" + NVMeSerial + ",subsys=sub0",
	}
	for i := 1; i <= o.Attached+o.Detached; i++ {
		disk := in(fmt.Sprintf("namespace-%d", i))
		f, err := os.Create(disk)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil {
			return nil, err
		}
		device := fmt.Sprintf("nvme-ns,drive=d%d,bus=nvme0,nsid=%d,shared=on", i, i)
		if i > o.Attached {
			device += ",detached=on"
		}
		args = append(args, "-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=d%d,cache=unsafe,discard=unmap", disk, i), "-device", device)
	}
	return args, nil
}

// monitor sends one command to the emulator and waits for its prompt.
func monitor(path, command string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return err
	}
	seen := ""
	for buf := make([]byte, 4096); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("%s: the emulator prints %q: %w", command, seen, err)
		}
		// There is a prompt before and after the command.
		if seen += string(buf[:n]); strings.Count(seen, "(qemu) ") >= 2 {
			return nil
		}
	}
}

// guest has the files that are added to a machine so that the test can reach it.
type guest struct {
	agent string            // path of the agent on this machine
	at    string            // path of the agent in the guest
	units map[string]string // systemd units by name, wanted by multi-user.target
	files map[string]string // further files of this machine, by their name in the guest
}

// newGuest returns a guest with an agent that serves the socket or port. It builds the agent
// on first use.
func newGuest(l *lab.Lab, at, serve string) (*guest, error) {
	g := &guest{agent: filepath.Join(l.Dir, "agent"), at: at, units: map[string]string{}}
	if _, err := os.Stat(g.agent); err != nil {
		root, err := lab.Repository()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", g.agent, "./internal/e2e/machine/agent")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the agent: %w: %s", err, out)
		}
	}
	// Processes that a script has started keep running when the agent exits, as after a login.
	g.units["e2e-agent.service"] = unit("the agent of the test", "",
		"ExecStart="+at+" serve "+serve, "KillMode=process", "Restart=always", "RestartSec=100ms")
	return g, nil
}

// network adds units that give a virtual machine its address, and that forward the loopback
// address in the certificate of the API server to the host.
func (g *guest) network(apiServer string) {
	_, port, _ := strings.Cut(apiServer, ":")
	g.units["e2e-network.service"] = unit("the emulator's network", "Before=network.target network-online.target",
		"Type=oneshot", "RemainAfterExit=yes",
		`ExecStart=/bin/sh -ec 'n=0; until [ -e /sys/class/net/eth0 ]; do n=$$((n+1)); [ $$n -lt 600 ]; sleep 0.1; done; `+
			`ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2'`)
	g.units["e2e-api.service"] = unit("the host's API server", "After=e2e-network.service\nBefore=network-online.target",
		"ExecStart="+g.at+" forward "+apiServer+" 10.0.2.2:"+port, "Restart=always", "RestartSec=100ms")
}

func unit(description, order string, service ...string) string {
	return "[Unit]\nDescription=End-to-end test: " + description + "\n" + order + "\n[Service]\n" + strings.Join(service, "\n") + "\n"
}

// write writes the units to a directory, and the agent to the path program.
func (g *guest) write(unitDir, program string) error {
	wants := filepath.Join(unitDir, "multi-user.target.wants")
	for _, dir := range []string{wants, filepath.Dir(program)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range g.units {
		if err := os.WriteFile(filepath.Join(unitDir, name), []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Symlink("../"+name, filepath.Join(wants, name)); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(g.agent)
	if err != nil {
		return err
	}
	return os.WriteFile(program, data, 0o755)
}

// File is a file that is created in a container before it boots. If Mode has ModeSymlink, it
// is a symbolic link to Text.
type File struct {
	Path string
	Mode fs.FileMode
	Text string
}

func (f File) write(root string) error {
	path := filepath.Join(root, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.Mode&fs.ModeSymlink != 0 {
		return os.Symlink(f.Text, path)
	}
	return os.WriteFile(path, []byte(f.Text), f.Mode)
}
