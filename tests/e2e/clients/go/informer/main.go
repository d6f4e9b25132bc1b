// A typed client-go program: it reads and writes protobuf and nothing else, watches with a shared informer, and says what
// it saw.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
)

const (
	namespace = "default"
	protobuf  = "application/vnd.kubernetes.protobuf"
)

// answers remembers those in another encoding.
type answers struct {
	next   http.RoundTripper
	mutex  *sync.Mutex
	others *[]string
}

func (a answers) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := a.next.RoundTrip(request)
	if err == nil && !strings.HasPrefix(response.Header.Get("Content-Type"), protobuf) {
		a.mutex.Lock()
		defer a.mutex.Unlock()
		*a.others = append(*a.others, request.Method+" "+request.URL.Path+": "+response.Header.Get("Content-Type"))
	}
	return response, err
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	var mutex sync.Mutex
	var others []string
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return answers{next, &mutex, &others} })
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf + ",application/json"
	config.QPS, config.Burst = 1000, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	seen := make(chan string, 1000)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { seen <- "added " + object.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, object any) { seen <- "updated " + object.(*corev1.ConfigMap).Name },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			seen <- "deleted " + object.(*corev1.ConfigMap).Name
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("the informer did not come up")
	}
	if err := configMaps(ctx, client); err != nil {
		return err
	}
	if err := expect(seen, []string{"added from-go", "deleted from-go", "updated from-go"}); err != nil {
		return err
	}
	if err := secrets(ctx, client); err != nil {
		return err
	}
	if err := deployment(ctx, client); err != nil {
		return err
	}
	if err := metadataOnly(ctx, config); err != nil {
		return err
	}
	mutex.Lock()
	defer mutex.Unlock()
	if len(others) > 0 {
		return fmt.Errorf("not answered as protobuf: %v", others)
	}
	fmt.Println("client-go saw everything")
	return nil
}

// Bytes that are no text, and a watch without an informer.
func secrets(ctx context.Context, client kubernetes.Interface) error {
	secrets := client.CoreV1().Secrets(namespace)
	only := metav1.ListOptions{FieldSelector: "metadata.name=from-go"}
	watched, err := secrets.Watch(ctx, only)
	if err != nil {
		return err
	}
	defer watched.Stop()
	bytes := []byte{0, 1, 254, 255}
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "from-go"}, Data: map[string][]byte{"bytes": bytes},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	read, err := secrets.Get(ctx, "from-go", metav1.GetOptions{})
	if err != nil || string(read.Data["bytes"]) != string(bytes) || read.Type != corev1.SecretTypeOpaque {
		return fmt.Errorf("the Secret came back as %v, %v", read, err)
	}
	if err = secrets.DeleteCollection(ctx, metav1.DeleteOptions{}, only); err != nil {
		return err
	}
	for _, wanted := range []string{"ADDED", "DELETED"} {
		select {
		case event := <-watched.ResultChan():
			secret, ok := event.Object.(*corev1.Secret)
			if string(event.Type) != wanted || !ok || string(secret.Data["bytes"]) != string(bytes) {
				return fmt.Errorf("the watch said %v instead of %s", event, wanted)
			}
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the watch never said %s", wanted)
		}
	}
	return nil
}

func metadataOnly(ctx context.Context, config *rest.Config) error {
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	namespaces := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	list, err := namespaces.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) < 3 {
		return fmt.Errorf("the metadata of namespaces: %v, %v", list, err)
	}
	one, err := namespaces.Get(ctx, namespace, metav1.GetOptions{})
	if err != nil || one.Labels["kubernetes.io/metadata.name"] != namespace {
		return fmt.Errorf("the metadata of a namespace: %v, %v", one, err)
	}
	return nil
}

func configMaps(ctx context.Context, client kubernetes.Interface) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "from-go"},
		Data:       map[string]string{"colour": "red"},
		BinaryData: map[string][]byte{"bytes": {0, 255}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if _, err = maps.Create(ctx, made, metav1.CreateOptions{}); err == nil {
		return fmt.Errorf("an object with a resourceVersion was created")
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		made.Data["colour"] = "blue"
		_, err := maps.Update(ctx, made, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	made.ResourceVersion = "1"
	if _, err = maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		return fmt.Errorf("an old object was taken: %v", err)
	}
	patch := []byte(`{"data":{"colour":"green"}}`)
	if _, err = maps.Patch(ctx, "from-go", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	list, err := maps.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil || len(list.Items) != 1 {
		return fmt.Errorf("a page of one: %d, %v", len(list.Items), err)
	}
	if err = maps.Delete(ctx, "from-go", metav1.DeleteOptions{}); err != nil {
		return err
	}
	if _, err = maps.Get(ctx, "from-go", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("a deleted object is there: %v", err)
	}
	return nil
}

// Everything wanted has to be seen; the rest are objects of others.
func expect(seen <-chan string, wanted []string) error {
	missing := map[string]bool{}
	for _, one := range wanted {
		missing[one] = true
	}
	deadline := time.After(20 * time.Second)
	for len(missing) > 0 {
		select {
		case one := <-seen:
			delete(missing, one)
		case <-deadline:
			var left []string
			for one := range missing {
				left = append(left, one)
			}
			sort.Strings(left)
			return fmt.Errorf("the informer never saw %v", left)
		}
	}
	return nil
}

// Probes, sources of the environment and volumes are embedded in Go's types, and travel as protobuf.
func deployment(ctx context.Context, client kubernetes.Interface) error {
	labels := map[string]string{"app": "go"}
	replicas := int32(1)
	optional := true
	container := corev1.Container{
		Name:  "main",
		Image: "registry.local/hello:v1",
		Env: []corev1.EnvVar{{Name: "COLOUR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "colour", Optional: &optional}}}},
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}},
	}
	_, err := client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "go"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{container}, Volumes: []corev1.Volume{{
					Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		found, err := client.AppsV1().Deployments(namespace).Get(ctx, "go", metav1.GetOptions{})
		return err == nil && found.Status.AvailableReplicas == 1, err
	})
	if err != nil {
		return fmt.Errorf("the Deployment did not become available: %w", err)
	}
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=go"})
	if err != nil {
		return err
	}
	if len(pods.Items) != 1 || pods.Items[0].Spec.Containers[0].Env[0].ValueFrom.ConfigMapKeyRef.Name != "none" {
		return fmt.Errorf("the pod is not what was asked for: %v", pods.Items)
	}
	propagation := metav1.DeletePropagationForeground
	err = client.AppsV1().Deployments(namespace).Delete(ctx, "go", metav1.DeleteOptions{PropagationPolicy: &propagation})
	return err
}
