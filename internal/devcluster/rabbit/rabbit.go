// Package rabbit replaces the data movement controller of a rabbit. It changes
// NnfDataMovement objects as the real controller does, and really copies. Like the
// real controller it runs the command of the profile in a shell without quoting, so
// that a test can detect shell injection. Faults can be injected (see Rule).
//
// It must not know the daemon that creates the objects.
package rabbit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/copytool"
)

// SystemNamespace is the namespace of movements from Lustre file systems.
const SystemNamespace = "nnf-dm-system"

var (
	movements = schema.GroupVersionResource{Group: "nnf.cray.hpe.com", Version: "v1alpha11", Resource: "nnfdatamovements"}
	profiles  = movements.GroupVersion().WithResource("nnfdatamovementprofiles")
	storages  = movements.GroupVersion().WithResource("nnfstorages")
)

// Config configures a rabbit. All fields except Maps, Faults and Ready are required.
type Config struct {
	Client     dynamic.Interface
	Namespaces []string // namespaces of the movements, usually its own and SystemNamespace
	Dir        string   // for commands.log, the control file "faults", hostfiles and the programs in bin
	Program    string   // target of the links mpirun and dcp in bin
	Maps       []Mapping
	Faults     []Rule // the rules of the control file take precedence
	AnyStorage bool   // do not check that the NnfStorage of a Lustre source exists
	Parallel   int    // number of concurrent commands
	Log        func(format string, args ...any)
	Ready      func() // called once, when every namespace is watched
}

type rabbit struct {
	Config
	record *recorder
	slots  chan struct{}
	once   sync.Once
	root   bool

	mu   sync.Mutex
	died map[types.UID]bool // movements that have restarted the rabbit (fault die)
}

// errDied stops the controller. It restarts immediately, as if Kubernetes starts a new
// container.
var errDied = errors.New("the rabbit died (injected)")

// Run works until ctx is done. It then kills running commands; a later Run starts them
// again.
func Run(ctx context.Context, c Config) error {
	r := &rabbit{Config: c, slots: make(chan struct{}, max(1, c.Parallel)), died: map[types.UID]bool{}, root: os.Getuid() == 0}
	if err := r.makeDirectory(); err != nil {
		return err
	}
	var err error
	if r.record, err = openRecorder(filepath.Join(c.Dir, "commands.log")); err != nil {
		return err
	}
	defer r.record.Close()
	if err := r.ensureProfile(ctx); err != nil {
		return fmt.Errorf("default NnfDataMovementProfile: %w", err)
	}
	for {
		err := r.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errDied) {
			return err
		}
		r.Log("%v; restarting", err)
	}
}

// runOnce runs the controller until ctx is done or it dies. Its only state is in the
// objects.
func (r *rabbit) runOnce(ctx context.Context) error {
	ctx, die := context.WithCancelCause(ctx)
	crew := &crew{rabbit: r, ctx: ctx, die: die, workers: map[types.UID]*worker{}}
	var watches sync.WaitGroup
	defer func() {
		die(nil)
		watches.Wait()
		crew.wait()
	}()
	for _, namespace := range r.Namespaces {
		informer := dynamicinformer.NewFilteredDynamicInformer(r.Client, movements, namespace, 0, cache.Indexers{}, nil).Informer()
		seen := func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			if o, ok := object.(*unstructured.Unstructured); ok {
				crew.notify(o)
			}
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: seen, UpdateFunc: func(_, now any) { seen(now) }, DeleteFunc: seen,
		}); err != nil {
			return err
		}
		watches.Go(func() { informer.Run(ctx.Done()) })
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return context.Cause(ctx)
		}
	}
	r.once.Do(func() {
		if r.Ready != nil {
			r.Ready()
		}
	})
	<-ctx.Done()
	return context.Cause(ctx)
}

// makeDirectory creates the directories and the links mpirun and dcp.
func (r *rabbit) makeDirectory() error {
	for _, name := range []string{"bin", "hostfiles"} {
		if err := os.MkdirAll(filepath.Join(r.Dir, name), 0o700); err != nil {
			return err
		}
	}
	for _, name := range copytool.Names() {
		link := filepath.Join(r.Dir, "bin", name)
		if to, err := os.Readlink(link); err == nil && to == r.Program {
			continue
		}
		// Replace it atomically, because another rabbit may use it.
		next := fmt.Sprintf("%s.%d", link, os.Getpid())
		if err := os.Symlink(r.Program, next); err != nil {
			return err
		}
		if err := os.Rename(next, link); err != nil {
			return err
		}
	}
	return nil
}

// ensureProfile creates the default profile unless it exists. It checks that first,
// because definitions may have rules that this profile violates, and the server
// validates before it reports a conflict.
func (r *rabbit) ensureProfile(ctx context.Context) error {
	p, in := defaultProfile(), r.Client.Resource(profiles).Namespace(profileNamespace)
	if _, err := in.Get(ctx, p.GetName(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	_, err := in.Create(ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// crew has the workers of one run, one per movement.
type crew struct {
	*rabbit
	ctx  context.Context
	die  context.CancelCauseFunc
	busy sync.WaitGroup

	mu      sync.Mutex
	workers map[types.UID]*worker
	closed  bool
}

// notify wakes the worker of the movement, and starts it if necessary.
func (c *crew) notify(o *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.ctx.Err() != nil {
		return
	}
	w := c.workers[o.GetUID()]
	if w == nil {
		w = newWorker(c, o)
		c.workers[w.uid] = w
		c.busy.Go(func() {
			w.work()
			c.mu.Lock()
			delete(c.workers, w.uid)
			c.mu.Unlock()
		})
	}
	select {
	case w.wake <- struct{}{}:
	default: // already notified
	}
}

// wait waits until all workers have returned, and prevents new ones.
func (c *crew) wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.busy.Wait()
}

// injectDeath stops this run, once per movement.
func (c *crew) injectDeath(uid types.UID) {
	c.rabbit.mu.Lock()
	again := c.died[uid]
	c.died[uid] = true
	c.rabbit.mu.Unlock()
	if !again {
		c.die(errDied)
	}
}

// mine reports whether the namespace is that of a rabbit. File systems have a
// directory per rabbit there.
func (r *rabbit) mine(namespace string) bool {
	return namespace != SystemNamespace && slices.Contains(r.Namespaces, namespace)
}
