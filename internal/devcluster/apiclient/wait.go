package apiclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// ErrTimeout is returned if a condition is not met in time.
var ErrTimeout = errors.New("timed out")

// WaitField waits until the field at the path has the value, in the form of Field. The
// object may not exist yet. After ctx is done it returns ErrTimeout with the last
// value.
func (c *Client) WaitField(ctx context.Context, t Target, path, want string) error {
	last := "the object does not exist"
	err := c.follow(ctx, t, func(object *unstructured.Unstructured) bool {
		if object == nil {
			last = "the object does not exist"
			return false
		}
		value, found := Field(object.Object, path)
		if last = fmt.Sprintf("%s is %q", path, value); !found {
			last = path + " is not set"
		}
		return found && value == want
	})
	if errors.Is(err, ErrTimeout) {
		return fmt.Errorf("%s: %w waiting for %s=%s: %s", t, ErrTimeout, path, want, last)
	}
	return err
}

// WaitGone waits until the object with the UID is gone, even if another object has the
// same name then.
func (c *Client) WaitGone(ctx context.Context, t Target, uid types.UID) error {
	var finalizers []string
	err := c.follow(ctx, t, func(object *unstructured.Unstructured) bool {
		if object == nil || object.GetUID() != uid {
			return true
		}
		finalizers = object.GetFinalizers()
		return false
	})
	if errors.Is(err, ErrTimeout) {
		return fmt.Errorf("%s: %w waiting for its deletion; finalizers left: %q", t, ErrTimeout, finalizers)
	}
	return err
}

// follow calls seen with every state of the object, nil if it does not exist, until
// seen returns true. It survives broken watches and restarts of the server.
func (c *Client) follow(ctx context.Context, t Target, seen func(*unstructured.Unstructured) bool) error {
	for {
		done, err := c.followOnce(ctx, t, seen)
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return ErrTimeout
		}
		// A response of the server is final, a broken connection is not.
		if status := apierrors.APIStatus(nil); errors.As(err, &status) && !apierrors.IsResourceExpired(err) &&
			!apierrors.IsServiceUnavailable(err) && !apierrors.IsTooManyRequests(err) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Client) followOnce(ctx context.Context, t Target, seen func(*unstructured.Unstructured) bool) (bool, error) {
	resource, err := c.open(ctx, t)
	if err != nil {
		return false, err
	}
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", t.Name).String()}
	list, err := resource.List(ctx, only)
	if err != nil {
		return false, err
	}
	var now *unstructured.Unstructured
	if len(list.Items) > 0 {
		now = &list.Items[0]
	}
	if seen(now) {
		return true, nil
	}
	only.ResourceVersion = list.GetResourceVersion()
	return followWatch(ctx, resource, only, seen)
}

func followWatch(ctx context.Context, resource dynamic.ResourceInterface, only metav1.ListOptions, seen func(*unstructured.Unstructured) bool) (bool, error) {
	watcher, err := resource.Watch(ctx, only)
	if err != nil {
		return false, err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		switch event.Type {
		case "ADDED", "MODIFIED":
		case "DELETED":
			object = nil
		default: // an error event: list again
			return false, nil
		}
		if (ok || object == nil) && seen(object) {
			return true, nil
		}
	}
	return false, nil
}
