"""Effects of the ingredients of the twelve trainings "screen 00" to "screen 11"; writes screening.md."""
import os
import numpy as np
from bench import ablation as A
from pipeline.data import faces
from pipeline.experiments import runner
from pipeline.evaluation import limits, metrics
data=faces.load(); asg=A.five_folds(data); half=A.halves(asg.fold_of)
tasks=A.plan(data,asg); res=runner.load_finished(data,tasks,A.FOLDER)
rows=asg.rows[half==0]; y=data.labels[rows].astype(int); groups=faces.picture_groups(data.pixels)[rows]
row=[1,1,0,1,1,1,0,0,0,1,0]
D=2*np.array([row[-i:]+row[:-i] for i in range(11)]+[[0]*11])-1
F=["squeeze","blur","depth","lr 0.04","dropout 0","identity","symmetric","sharpness","plain end","alternate","no smoothing"]
P=[res[f"screen {i:02d}",0].probabilities.astype("float64") for i in range(12) if (f"screen {i:02d}",0) in res]
print(len(P))
if len(P)==12:
    T=np.stack(limits.tempered(P,y)); E=T-np.eye(7)[y]; br=(E**2).sum(2)  # 12,n
    hit=np.array([metrics.right(p,y) for p in P])*100.
    print("acc", hit.mean(1).round(2), "brier", br.mean(1).round(4))
    boot=lambda v: limits.interval_95(limits.bootstrap(v,groups,0))
    N=["squeeze-and-excitation","anti-aliased pooling","residual connections with stochastic depth 0.2","twice the learning rate","no dropout","identity initialisation of the kernels","symmetric cross-entropy","sharpness-aware steps, by a quarter of the batch","last 3 epochs without augmentation","mirror images in alternate epochs","no label smoothing"]
    out=[]; C=[]
    for j,f in enumerate(N):
        w=D[:,j]/6.; a=w@hit; b=w@br; on,off=D[:,j]>0,D[:,j]<0
        def common(m):
            S=E[m].sum(0); k=m.sum()
            return ((S**2).sum(1)-(E[m]**2).sum(2).sum(0))/(k*(k-1))
        c=common(on)-common(off); C.append((a.mean(),b.mean(),c.mean()))
        ia,ib,ic=boot(a),boot(b),boot(c)
        out.append((b.mean(),f"| {f} | {a.mean():+.2f} ({ia[0]:+.2f} to {ia[1]:+.2f}) | {b.mean():+.4f} ({ib[0]:+.4f} to {ib[1]:+.4f}) | {c.mean():+.4f} ({ic[0]:+.4f} to {ic[1]:+.4f}) |"))
    C=np.abs(np.array(C))
    def lenth(x):
        s0=1.5*np.median(x); pse=1.5*np.median(x[x<2.5*s0]); from scipy.stats import t
        return t.ppf(.975,len(x)/3)*pse
    print("lenth ME", [lenth(C[:,k]) for k in range(3)])
    text="| ingredient | points (95 %) | Brier score (95 %) | common part (95 %) |\n|---|--:|--:|--:|\n"+"\n".join(l for _,l in sorted(out))+"\n"
    open("screening.md","w").write(text); print(text)
