package main

import (
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

const finalizer = "nnf.cray.hpe.com/nnf_clientmount"

// reconcile makes one step for a ClientMount: it writes at most one of the object and its
// status, and the resulting event starts the next step. The life of a ClientMount has six
// updates: the status with the desired state, the finalizer and the status with the result
// for the mount, the same two of the status for the unmount, and the finalizer. again
// means that another client has changed the object.
func (n *node) reconcile(key string) (again bool, err error) {
	cached := n.cached(key)
	if cached == nil {
		n.setMounted(key, false)
		return false, nil
	}
	cm := cached.DeepCopy()
	objects := n.client.Resource(clientMounts).Namespace(cm.GetNamespace())
	owned := slices.Contains(cm.GetFinalizers(), finalizer)
	desired, _, _ := unstructured.NestedString(cm.Object, "spec", "desiredState")
	switch {
	case cm.GetDeletionTimestamp() != nil:
		if !owned {
			return false, nil
		}
		n.setMounted(key, false)
		cm.SetFinalizers(slices.DeleteFunc(cm.GetFinalizers(), func(f string) bool { return f == finalizer }))
		return n.update(objects, cm)
	case state(cm) != desired:
		setStatus(cm, desired, false, nil)
	case !owned:
		cm.SetFinalizers(append(cm.GetFinalizers(), finalizer))
		return n.update(objects, cm)
	default:
		if err = n.profileOf(cm); err == nil {
			n.setMounted(key, desired == "mounted")
		}
		setStatus(cm, desired, err == nil, err)
	}
	if reflect.DeepEqual(cm.Object["status"], cached.Object["status"]) {
		return false, err
	}
	// The event of the newer object is in the queue after a conflict.
	if _, e := objects.UpdateStatus(n.ctx, cm, metav1.UpdateOptions{}); e != nil && !errors.IsConflict(e) && err == nil {
		err = e
	}
	return false, err
}

// cached returns a ClientMount, or nil if it does not exist.
func (n *node) cached(key string) *unstructured.Unstructured {
	for _, informer := range n.mounts {
		if o, exists, _ := informer.GetStore().GetByKey(key); exists {
			return o.(*unstructured.Unstructured)
		}
	}
	return nil
}

func (n *node) update(objects dynamic.ResourceInterface, cm *unstructured.Unstructured) (again bool, err error) {
	_, err = objects.Update(n.ctx, cm, metav1.UpdateOptions{})
	if errors.IsConflict(err) || errors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// state returns the state of the first mount in the status, or "".
func state(cm *unstructured.Unstructured) string {
	list, _, _ := unstructured.NestedSlice(cm.Object, "status", "mounts")
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	text, _ := first["state"].(string)
	return text
}

// setStatus replaces the status. All mounts of a ClientMount have the same state.
func setStatus(cm *unstructured.Unstructured, state string, ready bool, err error) {
	mounts, _, _ := unstructured.NestedSlice(cm.Object, "spec", "mounts")
	list := make([]any, len(mounts))
	for i := range list {
		list[i] = map[string]any{"state": state, "ready": ready}
	}
	status := map[string]any{"mounts": list, "allReady": ready}
	if err != nil {
		status["error"] = map[string]any{"type": "Internal", "severity": "Major", "debugMessage": err.Error()}
	}
	cm.Object["status"] = status
}
