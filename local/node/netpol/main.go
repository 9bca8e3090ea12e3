// Command netpol is kube-router's network policy controller alone: NetworkPolicies become iptables rules and ipsets of this node's
// network. Its router and its Service proxy are left out, with all that they would bring in.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// period is how often all rules are written anew; a changed Pod, policy or namespace is told at once.
const period = time.Minute

// health knows when the last pass over all policies began and whether anything was logged as an error since.
type health struct {
	began  atomic.Int64
	failed atomic.Bool
}

// Write takes what is logged as an error: the controller gives up a pass with no other sign.
func (h *health) Write(line []byte) (int, error) {
	h.failed.Store(true)
	return len(line), nil
}

func (h *health) follow(beats <-chan *healthcheck.ControllerHeartbeat) {
	for beat := range beats {
		h.failed.Store(false)
		h.began.Store(beat.LastHeartBeat.UnixNano())
	}
}

func (h *health) ServeHTTP(answer http.ResponseWriter, _ *http.Request) {
	age := time.Since(time.Unix(0, h.began.Load()))
	if h.failed.Load() || age > 2*period {
		answer.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(answer, "failed: %t, last pass: %s ago; the log says why\n", h.failed.Load(), age)
		return
	}
	fmt.Fprintln(answer, "ok")
}

func run(kubeconfig, node, services, address string) error {
	// Errors go to the log with the rest, and to the health. klog opens files for what has no output.
	state := &health{}
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := flags.Set(name, value); err != nil {
			return err
		}
	}
	klog.SetOutputBySeverity("INFO", os.Stderr)
	klog.SetOutputBySeverity("WARNING", io.Discard)
	klog.SetOutputBySeverity("ERROR", state)
	klog.SetOutputBySeverity("FATAL", io.Discard)

	settings, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(settings)
	if err != nil {
		return err
	}
	config := options.NewKubeRouterConfig()
	config.EnableIPv4, config.EnableIPv6 = true, false
	config.HostnameOverride = node
	config.ClusterIPCIDRs = []string{services}
	config.IPTablesSyncPeriod = period
	tables, sets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return err
	}

	stop := make(chan struct{})
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	controller, err := netpol.NewNetworkPolicyController(
		client, config, pods, policies, namespaces, &sync.Mutex{}, tables, sets)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods:       controller.PodEventHandler,
		namespaces: controller.NamespaceEventHandler,
		policies:   controller.NetworkPolicyEventHandler,
	} {
		if _, err = informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(stop)
	for kind, synced := range factory.WaitForCacheSync(stop) {
		if !synced {
			return fmt.Errorf("no list of %s", kind)
		}
	}

	beats := make(chan *healthcheck.ControllerHeartbeat, 10)
	go state.follow(beats)
	go func() { klog.Fatal(http.ListenAndServe(address, state)) }()
	var running sync.WaitGroup
	running.Add(1)
	go controller.Run(beats, stop, &running)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
	close(stop)
	running.Wait()
	return nil
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of the API server")
	node := flag.String("node", "", "name of this node")
	services := flag.String("services", "", "network of Services")
	address := flag.String("health", "127.0.0.1:10258", "address that answers whether the last pass failed")
	flag.Parse()
	if err := run(*kubeconfig, *node, *services, *address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
