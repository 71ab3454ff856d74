package conformance

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }

// A kind is one type of file system and of device.
type kind struct {
	name    string
	typ     string // spec.mounts[].type
	device  string // spec.mounts[].device.type
	mounted string // type in the mount table; empty: whatever /dev has
	file    bool   // the target is a file
	lvm     bool   // on a logical volume
	locks   bool   // in a shared volume group
	test    bool   // needs the test build, which knows what stand-ins mount

	// What is called with the shipped profile, in order (contract
	// clientmountd.md 5.2, 5.3). V, L: group and volume; D: the device node, or
	// the source of a Lustre mount; P: the mount path.
	mount, unmount []string
	// Lists of hooks in the order in which they run.
	up, down []string
}

var (
	lvmUp      = []string{"preActivate", "postActivate", "preMount", "postMount"}
	lvmDown    = []string{"preUnmount", "postUnmount", "preDeactivate", "postDeactivate"}
	lustreUp   = []string{"preMount", "postMount"}
	lustreDown = []string{"preUnmount", "postUnmount"}
)

var kinds = []*kind{
	{
		name: "xfs", typ: "xfs", device: "lvm", mounted: "xfs", lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t xfs -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
	}, {
		name: "raw", typ: "none", device: "lvm", file: true, lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t none -o bind D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
	}, {
		name: "gfs2", typ: "gfs2", device: "lvm", mounted: "xfs", lvm: true, locks: true, test: true, up: lvmUp, down: lvmDown,
		mount:   []string{"vgs", "vgchange --lock-start V", "lvs", "lvchange --activate ys V/L", "mount -t gfs2 -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L", "vgs", "lvs", "vgchange --lock-stop V"},
	}, {
		name: "lustre", typ: "lustre", device: "lustre", mounted: "tmpfs", test: true, up: lustreUp, down: lustreDown,
		mount:   []string{"mount -t lustre -o nosuid,nodev D P"},
		unmount: []string{"umount P"},
	}, {
		name: "reference", typ: "xfs", device: "reference", mounted: "xfs", lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t xfs -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
	},
}

// A behaviour is one promise. fits is nil when every kind must keep it.
type behaviour struct {
	name string
	fits func(*kind) bool
	play func(*scene)
}

func lvmOnly(k *kind) bool     { return k.lvm }
func directories(k *kind) bool { return !k.file }
func rawOnly(k *kind) bool     { return k.file }
func xfsOnly(k *kind) bool     { return k.name == "xfs" }

var behaviours = slices.Concat(lifeBehaviours, hookBehaviours, severalBehaviours, goneBehaviours, foreignBehaviours,
	busyBehaviours, commandBehaviours, deviceBehaviours, shutdownBehaviours, managerBehaviours, namespaceBehaviours, orphanBehaviours, targetBehaviours,
	modeBehaviours, serversBehaviours, optionBehaviours, sharedBehaviours, observedBehaviours, recordBehaviours)

// TestConformance plays each behaviour for each kind that it is about.
func TestConformance(t *testing.T) {
	played := 0
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			n := 0
			for _, b := range behaviours {
				if b.fits != nil && !b.fits(k) {
					continue
				}
				t.Run(b.name, func(t *testing.T) { b.play(newScene(t, k)); n++ })
			}
			fmt.Printf("conformance: %s: %d behaviours kept\n", k.name, n)
			played += n
		})
	}
	fmt.Printf("conformance: %d behaviours, %d kinds, %d scenes\n", len(behaviours), len(kinds), played)
}

// spec is the entry for allocation index at path.
func (k *kind) spec(path string, index int) world.MountSpec {
	m := world.MountSpec{Path: path, Type: k.typ, Device: k.device, Index: index}
	if k.typ == "lustre" {
		m.FSName, m.MGS = fsName(index), mgs
	}
	if k.file {
		m.Own, m.UID, m.GID = true, 1234, 2345 // as the rabbit asks for raw devices
	}
	return m
}

const mgs = "10.0.0.1@tcp:10.0.0.2@tcp"

func fsName(index int) string { return fmt.Sprintf("fs%d", index) }
