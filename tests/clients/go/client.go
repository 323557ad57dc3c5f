// A Go client generated from the proto. It shows every way a call can end, with gRPC's own libraries.
//
// Usage: client ADDRESS TRACEPARENT PAID_CERT_ID [drain].
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	scm "example.org/client/huaweicloud/scm/v1"
)

// name returns the status code as gRPC writes it.
func name(err error) code.Code { return code.Code(status.Code(err)) }

// detail returns the detail of this type, or an empty one.
func detail[T any](err error) T {
	for _, any := range status.Convert(err).Details() {
		if detail, ok := any.(T); ok {
			return detail
		}
	}
	var none T
	return none
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func request(certID string) *scm.SaveInfoRequest {
	return &scm.SaveInfoRequest{
		CertId: certID,
		Info: &scm.CertificateInfo{
			Domain: "www.xzz.com", Sans: []string{"xzz.com"}, Country: "CN", ApplicantName: "Tom",
			ApplicantPhone: "13212345678", ApplicantEmail: "9997342346@qq.com", AgreePrivacyProtection: true,
		},
	}
}

const unknown = "nowhere" // a project that SCM does not know

// docs: watch
// watch calls each with the states of a certificate, and returns the final one. It watches again after UNAVAILABLE, such as
// after a restart.
func watch(ctx context.Context, client scm.CertificateServiceClient, certID string,
	each func(*scm.Certificate)) (*scm.Certificate, error) {
	for {
		var certificate *scm.Certificate
		stream, err := client.WatchCertificate(ctx, &scm.WatchCertificateRequest{CertId: certID})
		for err == nil {
			var response *scm.WatchCertificateResponse
			if response, err = stream.Recv(); err == nil {
				certificate = response.GetCertificate()
				each(certificate)
			}
		}
		if err == io.EOF {
			return certificate, nil
		}
		if status.Code(err) != codes.Unavailable {
			return nil, err
		}
		time.Sleep(time.Second)
	}
}

// docs: end

func main() {
	// docs: channel
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A PING every minute notices a connection that is lost.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute}))
	must(err)
	// docs: end
	defer conn.Close()
	client := scm.NewCertificateServiceClient(conn)
	save := func(certID string, deadline time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		_, err := client.SaveInfo(ctx, request(certID))
		return err
	}
	const good, timeout = "scs1481110651012", 5 * time.Second
	if len(os.Args) > 4 {
		fmt.Println("drain:", name(save(good, timeout)))
		return
	}

	traced := metadata.AppendToOutgoingContext(context.Background(), "traceparent", os.Args[2])
	var header metadata.MD
	saved, err := client.SaveInfo(traced, request(good), grpc.Header(&header))
	must(err)
	fmt.Println("SaveInfo:", saved.GetRequestInfo())
	fmt.Println("request id:", map[bool]string{true: "given", false: "missing"}[len(header.Get("x-upstream-request-id")) > 0])
	read, err := client.ReadInfo(context.Background(), &scm.ReadInfoRequest{CertId: good})
	must(err)
	fmt.Println("ReadInfo:", read.GetInfo().GetDomain())

	paid := os.Args[3]
	// docs: apply
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	applied, err := client.ApplyCertificate(ctx, &scm.ApplyCertificateRequest{
		CertId: paid, Domain: "www.example.com", ApplicantName: "Ann Example", ApplicantPhone: "13212345678",
		ApplicantEmail: "ann@example.com", AgreePrivacyProtection: true, DomainMethod: "DNS",
	})
	must(err)
	fmt.Println("ApplyCertificate:", applied.GetRequestInfo())

	published := map[string]bool{}
	publish := func(certificate *scm.Certificate) {
		for _, proof := range certificate.GetDomainProofs() {
			record := proof.GetRecordName() + " " + proof.GetRecordType() + " " + proof.GetRecordValue()
			if !published[record] {
				fmt.Println("publish", record)
				published[record] = true
			}
		}
	}
	// 60 s are enough for the emulator: a CA can take days.
	ctx, cancel = context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	certificate, err := watch(ctx, client, paid, publish)
	must(err)
	fmt.Println("watch:", certificate.GetStatus())
	if certificate.GetStatus() != "ISSUED" {
		log.Fatal("not issued")
	}
	// docs: end

	// docs: push
	ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pushes, err := client.BatchPushCertificate(ctx, &scm.BatchPushCertificateRequest{
		CertId: paid, TargetProjects: []string{"cn-north-4", unknown}, TargetService: "WAF",
	})
	must(err)
	for _, result := range pushes.GetResults() {
		if result.GetPushed() {
			fmt.Println("pushed:", result.GetProjectName())
		} else {
			fmt.Printf("not pushed: %s: %s\n", result.GetProjectName(), result.GetMessage())
		}
	}
	// docs: end

	soon, stop := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer stop()
	_, err = watch(soon, client, good, func(*scm.Certificate) {})
	fmt.Println("watch deadline:", name(err))
	ctx, cancel = context.WithCancel(context.Background())
	watched, err := client.WatchCertificate(ctx, &scm.WatchCertificateRequest{CertId: good})
	must(err)
	_, err = watched.Recv()
	must(err)
	cancel()
	_, err = watched.Recv()
	fmt.Println("watch cancel:", name(err))

	rejected := save("!", timeout)
	fmt.Print("BadRequest:")
	for _, violation := range detail[*errdetails.BadRequest](rejected).GetFieldViolations() {
		fmt.Print(" ", violation.GetField())
	}
	info := detail[*errdetails.ErrorInfo](rejected)
	fmt.Println("\nErrorInfo:", info.GetDomain(), info.GetReason())

	// This gateway allows one call in flight, and the emulator takes half a second for a reply.
	ends := make(chan error, 2)
	for range [2]int{} {
		go func() { ends <- save(good, timeout) }()
	}
	shed := <-ends
	if other := <-ends; shed == nil {
		shed = other
	}
	fmt.Println("overload:", name(shed), detail[*errdetails.ErrorInfo](shed).GetReason())
	fmt.Println("RetryInfo:", detail[*errdetails.RetryInfo](shed).GetRetryDelay().GetSeconds(), "s")

	fmt.Println("deadline:", name(save(good, 200*time.Millisecond)))
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = client.SaveInfo(ctx, request(good))
	fmt.Println("cancel:", name(err))

	answer, err := health.NewHealthClient(conn).Check(context.Background(),
		&health.HealthCheckRequest{Service: "huaweicloud.scm.v1.CertificateService"})
	must(err)
	fmt.Println("health:", answer.GetStatus())

	stream, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	must(err)
	must(stream.Send(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}))
	listed, err := stream.Recv()
	must(err)
	fmt.Print("reflection:")
	for _, service := range listed.GetListServicesResponse().GetService() {
		if strings.HasPrefix(service.GetName(), "huaweicloud") {
			fmt.Print(" ", service.GetName())
		}
	}
	fmt.Println()
}
