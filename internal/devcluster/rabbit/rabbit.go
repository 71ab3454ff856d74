// Package rabbit stands in for the data movement controller of a rabbit: it
// does to NnfDataMovement objects what the real one can be seen doing, and
// really copies, with the profile's command in a shell, unquoted and as the
// real one does, so that a test can see whether a user's text breaks out.
// Faults can be injected (see Rule).
//
// It must not know the daemon that makes the objects.
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

// SystemNamespace is where movements from Lustre file systems live.
const SystemNamespace = "nnf-dm-system"

var (
	movements = schema.GroupVersionResource{Group: "nnf.cray.hpe.com", Version: "v1alpha11", Resource: "nnfdatamovements"}
	profiles  = movements.GroupVersion().WithResource("nnfdatamovementprofiles")
	storages  = movements.GroupVersion().WithResource("nnfstorages")
)

// Config says where and how a rabbit works. Everything but Maps, Faults and
// Ready is needed.
type Config struct {
	Client     dynamic.Interface
	Namespaces []string // whose movements it does, usually its own and SystemNamespace
	Folder     string   // for commands.log, the control file "faults", hostfiles and the programs in bin
	Program    string   // the binary to which the links mpirun and dcp in bin go
	Maps       []Mapping
	Faults     []Rule // those of the control file come first
	AnyStorage bool   // do not ask whether the NnfStorage of a Lustre source exists
	Parallel   int    // commands at the same time
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
	died map[types.UID]bool // movements whose injected death of the rabbit has happened
}

// errDied ends one life of the controller; the next begins at once, as when
// Kubernetes starts a new container.
var errDied = errors.New("the rabbit died (injected)")

// Run works until ctx ends; commands that run then are killed, and a later
// Run starts them again.
func Run(ctx context.Context, c Config) error {
	r := &rabbit{Config: c, slots: make(chan struct{}, max(1, c.Parallel)), died: map[types.UID]bool{}, root: os.Getuid() == 0}
	if err := r.makeDirectory(); err != nil {
		return err
	}
	var err error
	if r.record, err = openRecorder(filepath.Join(c.Folder, "commands.log")); err != nil {
		return err
	}
	defer r.record.Close()
	if err := r.ensureProfile(ctx); err != nil {
		return fmt.Errorf("default NnfDataMovementProfile: %w", err)
	}
	for {
		err := r.live(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errDied) {
			return err
		}
		r.Log("%v; starting again", err)
	}
}

// live is one life of the controller: it knows nothing of an earlier one but
// what the objects say.
func (r *rabbit) live(ctx context.Context) error {
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
				crew.nudge(o)
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

// makeDirectory makes the directory: links called mpirun and dcp, a place for hostfiles.
func (r *rabbit) makeDirectory() error {
	for _, folder := range []string{"bin", "hostfiles"} {
		if err := os.MkdirAll(filepath.Join(r.Folder, folder), 0o700); err != nil {
			return err
		}
	}
	for _, name := range copytool.Names() {
		link := filepath.Join(r.Folder, "bin", name)
		if to, err := os.Readlink(link); err == nil && to == r.Program {
			continue
		}
		// Replaced in one step: another rabbit may be starting it right now.
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

// ensureProfile creates the default profile unless there is one of its name. It
// looks first: definitions may have rules that ours breaks, which the server
// judges before it says that there is one already.
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

// crew is the workers of one life, one per movement.
type crew struct {
	*rabbit
	ctx  context.Context
	die  context.CancelCauseFunc
	busy sync.WaitGroup

	mu      sync.Mutex
	workers map[types.UID]*worker
	closed  bool
}

// nudge lets the movement's worker look at it, and makes one if there is none.
func (c *crew) nudge(o *unstructured.Unstructured) {
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
	default: // it has not looked since the last nudge
	}
}

// wait returns when all workers have ended; none begins any more.
func (c *crew) wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.busy.Wait()
}

// injectDeath ends this life for the movement's sake, once per movement.
func (c *crew) injectDeath(uid types.UID) {
	c.rabbit.mu.Lock()
	again := c.died[uid]
	c.died[uid] = true
	c.rabbit.mu.Unlock()
	if !again {
		c.die(errDied)
	}
}

// mine tells whether the namespace is a rabbit's own, where one file system
// has a directory per rabbit.
func (r *rabbit) mine(namespace string) bool {
	return namespace != SystemNamespace && slices.Contains(r.Namespaces, namespace)
}
