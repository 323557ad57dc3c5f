// Saves the information of one certificate, or prints why the call failed.
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.huaweicloud.scm.v1.CertificateInfo;
import com.huaweicloud.scm.v1.CertificateServiceGrpc;
import com.huaweicloud.scm.v1.SaveInfoRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.concurrent.TimeUnit;

class Save {
    public static void main(String[] args) throws Exception {
        var channel = Grpc.newChannelBuilder("127.0.0.1:50051", InsecureChannelCredentials.create()).build();
        var request = SaveInfoRequest.newBuilder().setCertId(args[0])
            .setInfo(CertificateInfo.newBuilder()
                .setDomain("www.xzz.com").addSans("xzz.com").setCountry("CN").setApplicantName("Tom")
                .setApplicantPhone("13212345678").setApplicantEmail("9997342346@qq.com")
                .setAgreePrivacyProtection(true))
            .build();
        try {
            var reply = CertificateServiceGrpc.newBlockingStub(channel)
                .withDeadlineAfter(5, TimeUnit.SECONDS).saveInfo(request);
            System.out.println(reply.getRequestInfo());
        } catch (StatusRuntimeException e) {
            System.out.println(e.getStatus().getCode() + ": " + e.getStatus().getDescription());
            var status = StatusProto.fromThrowable(e); // null if there are no details
            if (status == null) return;
            for (var detail : status.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    var info = detail.unpack(ErrorInfo.class);
                    System.out.println("ErrorInfo " + info.getReason() + " " + info.getMetadataOrDefault("upstream_code", ""));
                } else if (detail.is(BadRequest.class)) {
                    for (var violation : detail.unpack(BadRequest.class).getFieldViolationsList())
                        System.out.println("BadRequest " + violation.getField() + ": " + violation.getDescription());
                } else if (detail.is(RetryInfo.class)) {
                    var delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    System.out.println("RetryInfo " + Durations.toMillis(delay) + " ms");
                }
            }
        } finally {
            channel.shutdownNow();
        }
    }
}
