// A Java client generated from the proto. It shows every way a call can end, with gRPC's own libraries.
//
// Usage: java Client ADDRESS TRACEPARENT PAID_CERT_ID [drain]. Debian's grpc-java has no reflection client.

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.huaweicloud.scm.v1.ApplyCertificateRequest;
import com.huaweicloud.scm.v1.BatchPushCertificateRequest;
import com.huaweicloud.scm.v1.Certificate;
import com.huaweicloud.scm.v1.CertificateInfo;
import com.huaweicloud.scm.v1.CertificateServiceGrpc;
import com.huaweicloud.scm.v1.ReadInfoRequest;
import com.huaweicloud.scm.v1.SaveInfoRequest;
import com.huaweicloud.scm.v1.SaveInfoResponse;
import com.huaweicloud.scm.v1.WatchCertificateRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.HashSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;

class Client {
    static final Metadata.Key<String> TRACEPARENT = Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER);
    static final Metadata.Key<String> REQUEST_ID =
        Metadata.Key.of("x-upstream-request-id", Metadata.ASCII_STRING_MARSHALLER);

    static final String UNKNOWN = "nowhere"; // a project that SCM does not know

    // docs: watch
    // Calls `each` with the states of a certificate, and returns the final one. Watches again after UNAVAILABLE, such as
    // after a restart.
    static Certificate watch(CertificateServiceGrpc.CertificateServiceBlockingStub stub, String certId, int seconds,
            Consumer<Certificate> each) throws InterruptedException {
        var withDeadline = stub.withDeadlineAfter(seconds, TimeUnit.SECONDS);
        var request = WatchCertificateRequest.newBuilder().setCertId(certId).build();
        while (true) {
            try {
                Certificate certificate = null;
                var responses = withDeadline.watchCertificate(request);
                while (responses.hasNext()) {
                    certificate = responses.next().getCertificate();
                    each.accept(certificate);
                }
                return certificate;
            } catch (StatusRuntimeException e) {
                if (e.getStatus().getCode() != Status.Code.UNAVAILABLE) throw e;
                Thread.sleep(1000);
            }
        }
    }
    // docs: end

    static SaveInfoRequest request(String certId) {
        return SaveInfoRequest.newBuilder().setCertId(certId)
            .setInfo(CertificateInfo.newBuilder()
                .setDomain("www.xzz.com").addSans("xzz.com").setCountry("CN").setApplicantName("Tom")
                .setApplicantPhone("13212345678").setApplicantEmail("9997342346@qq.com")
                .setAgreePrivacyProtection(true))
            .build();
    }

    interface Call {
        void make();
    }

    static StatusRuntimeException failure(Call call) {
        try {
            call.make();
        } catch (StatusRuntimeException e) {
            return e;
        }
        throw new AssertionError("the call did not fail");
    }

    // Returns the detail of this type, or null.
    static <T extends com.google.protobuf.Message> T detail(Throwable error, Class<T> type) throws Exception {
        var status = StatusProto.fromThrowable(error);
        if (status == null) return null;
        for (Any any : status.getDetailsList()) {
            if (any.is(type)) return any.unpack(type);
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        // docs: channel
        var channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create())
            .keepAliveTime(1, TimeUnit.MINUTES) // a PING notices a connection that is lost
            .build();
        var stub = CertificateServiceGrpc.newBlockingStub(channel);
        // docs: end
        var good = request("scs1481110651012");
        if (args.length > 3) {
            var error = failure(() -> stub.withDeadlineAfter(5, TimeUnit.SECONDS).saveInfo(good));
            System.out.println("drain: " + error.getStatus().getCode());
            System.exit(0);
        }

        var metadata = new Metadata();
        metadata.put(TRACEPARENT, args[1]);
        var headers = new AtomicReference<Metadata>();
        var traced = stub.withDeadlineAfter(5, TimeUnit.SECONDS)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata),
                MetadataUtils.newCaptureMetadataInterceptor(headers, new AtomicReference<>()));
        System.out.println("SaveInfo: " + traced.saveInfo(good).getRequestInfo());
        System.out.println("request id: " + (headers.get().containsKey(REQUEST_ID) ? "given" : "missing"));
        var read = stub.withDeadlineAfter(5, TimeUnit.SECONDS)
            .readInfo(ReadInfoRequest.newBuilder().setCertId("scs1481110651012").build());
        System.out.println("ReadInfo: " + read.getInfo().getDomain());

        var paid = args[2];
        // docs: apply
        var application = ApplyCertificateRequest.newBuilder()
            .setCertId(paid).setDomain("www.example.com").setApplicantName("Ann Example")
            .setApplicantPhone("13212345678").setApplicantEmail("ann@example.com")
            .setAgreePrivacyProtection(true).setDomainMethod("DNS").build();
        var applied = stub.withDeadlineAfter(5, TimeUnit.SECONDS).applyCertificate(application);
        System.out.println("ApplyCertificate: " + applied.getRequestInfo());

        var published = new HashSet<String>();
        Consumer<Certificate> publish = state -> {
            for (var proof : state.getDomainProofsList()) {
                var record = proof.getRecordName() + " " + proof.getRecordType() + " " + proof.getRecordValue();
                if (published.add(record)) System.out.println("publish " + record);
            }
        };
        var certificate = watch(stub, paid, 60, publish); // 60 s are enough for the emulator: a CA can take days
        System.out.println("watch: " + certificate.getStatus());
        if (!certificate.getStatus().equals("ISSUED")) throw new IllegalStateException("not issued");
        // docs: end

        // docs: push
        var push = BatchPushCertificateRequest.newBuilder()
            .setCertId(paid).addTargetProjects("cn-north-4").addTargetProjects(UNKNOWN).setTargetService("WAF").build();
        var pushes = stub.withDeadlineAfter(5, TimeUnit.SECONDS).batchPushCertificate(push);
        for (var result : pushes.getResultsList()) {
            if (result.getPushed()) System.out.println("pushed: " + result.getProjectName());
            else System.out.println("not pushed: " + result.getProjectName() + ": " + result.getMessage());
        }
        // docs: end

        var draft = WatchCertificateRequest.newBuilder().setCertId("scs1481110651012").build();
        var late = failure(() -> stub.withDeadlineAfter(700, TimeUnit.MILLISECONDS).watchCertificate(draft)
            .forEachRemaining(response -> {}));
        System.out.println("watch deadline: " + late.getStatus().getCode());
        var watching = io.grpc.Context.current().withCancellation();
        var watched = watching.call(() -> stub.withDeadlineAfter(5, TimeUnit.SECONDS).watchCertificate(draft));
        watched.next();
        watching.cancel(null);
        System.out.println("watch cancel: " + failure(watched::hasNext).getStatus().getCode());

        var rejected = failure(() -> stub.withDeadlineAfter(5, TimeUnit.SECONDS).saveInfo(request("!")));
        var fields = new StringBuilder();
        detail(rejected, BadRequest.class).getFieldViolationsList().forEach(v -> fields.append(" ").append(v.getField()));
        System.out.println("BadRequest:" + fields);
        var info = detail(rejected, ErrorInfo.class);
        System.out.println("ErrorInfo: " + info.getDomain() + " " + info.getReason());

        // This gateway allows one call in flight, and the emulator takes half a second for a reply.
        var futures = CertificateServiceGrpc.newFutureStub(channel);
        var both = java.util.List.of(futures.withDeadlineAfter(5, TimeUnit.SECONDS).saveInfo(good),
            futures.withDeadlineAfter(5, TimeUnit.SECONDS).saveInfo(good));
        Throwable shed = null;
        for (Future<SaveInfoResponse> one : both) {
            try {
                one.get();
            } catch (ExecutionException e) {
                shed = e.getCause();
            }
        }
        System.out.println("overload: " + Status.fromThrowable(shed).getCode() + " "
            + detail(shed, ErrorInfo.class).getReason());
        System.out.println("RetryInfo: " + detail(shed, RetryInfo.class).getRetryDelay().getSeconds() + " s");

        var timedOut = failure(() -> stub.withDeadlineAfter(200, TimeUnit.MILLISECONDS).saveInfo(good));
        System.out.println("deadline: " + timedOut.getStatus().getCode());
        var context = io.grpc.Context.current().withCancellation();
        var cancelled = context.call(() -> futures.withDeadlineAfter(5, TimeUnit.SECONDS).saveInfo(good));
        context.cancel(null);
        try {
            cancelled.get();
        } catch (ExecutionException e) {
            System.out.println("cancel: " + Status.fromThrowable(e.getCause()).getCode());
        }

        var health = HealthGrpc.newBlockingStub(channel).check(
            HealthCheckRequest.newBuilder().setService("huaweicloud.scm.v1.CertificateService").build());
        System.out.println("health: " + health.getStatus());
        channel.shutdownNow();
    }
}
